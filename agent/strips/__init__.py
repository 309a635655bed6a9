"""The strip's journey, from a file in a camera's folder to a committed result: `journey.py` is the story."""
