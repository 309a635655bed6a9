"""The shadow: a second model that scores the same strips when nothing waits, and decides nothing.

rules.py    when it may work, what costs it its place      journey.py  its worker, strip by strip
notes.py    what it says until that is written down    message.py  how it compares, as `state/shadow`
brake.py    has it stand still for live strips         telling.py  keeps that up to date
"""
