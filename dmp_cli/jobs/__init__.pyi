from .cluster import Cluster as Cluster
from .cluster_file import read_cluster as read_cluster
from .devices import Slot as Slot, slots_of as slots_of
from .graph import Job as Job, jobs_of as jobs_of
from .processes import Here as Here
from .schedule import Board as Board, Outcome as Outcome, Places as Places, Running as Running, carry_out as carry_out
