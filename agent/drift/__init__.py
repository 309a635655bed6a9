"""Drift that names the culprit: what on the line looks otherwise than when the model was calibrated.

student.py   how far chance alone may take a mean       judging.py  which alarm follows from the last strips: pure
wording.py   a finding as a sentence                    sketch.py    how a measure was spread over a day
watch.py     keeps the last strips of each camera, and what follows from them
"""
