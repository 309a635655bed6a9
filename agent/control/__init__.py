"""Commands to a running service: where they come in (`endpoint.py`) and what they do (`commands.py`)."""
