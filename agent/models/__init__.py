"""The model's journey, from a file in the inbox to the worker that strips go to: `journey.py` is the story."""
