"""Results, events and states on their way to the broker: the last part of the strip's journey.

- `link.py` keeps one connection
- `inflight.py`: the outbox's messages under way, oldest first
- `states.py`: the retained states, latest value only
- `presence.py`: `state/agent`, the will, and others with our name
- `retained.py`: what is retained on the broker, and what of it is to be cleared
- `audience.py`: whether anybody subscribes
- `flow_control.py`: how many messages at a time, and which one makes the broker hang up
- `holds.py`: topics that the broker refuses
- `poison.py`: the message on which the broker hung up
- `echo.py`: whether messages really arrive, where the protocol does not say
- `status.py`: what others see
- `publisher.py` puts them together
"""

from agent.publisher.outbox import Outbox
from agent.publisher.publisher import Publisher
from agent.publisher.status import PublisherStatus

__all__ = ["Outbox", "Publisher", "PublisherStatus"]
