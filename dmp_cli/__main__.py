"""``python -m dmp_cli`` is ``dmp``."""

from .cli import main

main()
