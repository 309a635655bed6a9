"""Results and states as Sparkplug B 3.0: the box is an edge node, each camera a device of it. docs/sparkplug.md.

- `payload.py`: records to bytes and back; `metrics.py`: which metrics there are, `topics.py`: on which topics
- `known.py`: what is known of the box, `telling.py`: what is told of it and in which order
- `session.py`: one connection's births, deaths and sequence numbers, `bdseq.py`: the number of the connection
- `delivery.py`: the outbox in batches, each with its acknowledgement
- `host.py`: the primary host, `commands.py`: what hosts write
- `status.py`: what others see
- `node.py` puts them together
"""
