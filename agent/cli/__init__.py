"""The command line: `__main__.py` has every command, `show.py` the words for people."""
