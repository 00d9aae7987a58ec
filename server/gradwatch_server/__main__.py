"""``python -m gradwatch_server serve``."""

from .cli import main

main()
