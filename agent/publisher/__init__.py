"""Results, events and states on their way to the broker: the last part of the strip's journey.

- `link.py` keeps one connection
- `window.py`: the outbox's messages under way, oldest first
- `states.py`: the retained states, latest value only
- `holds.py`: topics that the broker refuses
- `proof.py`: whether messages really arrive, where the protocol does not say
- `publisher.py` puts them together
"""

from agent.publisher.publisher import Publisher, PublisherStatus
from agent.publisher.window import Outbox

__all__ = ["Outbox", "Publisher", "PublisherStatus"]
