from .cached import find_patch as find_patch
from .card import Known as Known, build_card as build_card
from .naming import HubName as HubName, pinned_name as pinned_name, read_name as read_name, short_name as short_name
from .publishing import Pushed as Pushed, files_of as files_of, push as push
