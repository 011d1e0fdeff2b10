from .help import group_page as group_page
from .index import COMMANDS as COMMANDS
from .train.in_python import train_in_python as train_in_python
