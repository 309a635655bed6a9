"""Try a provider in a process that may crash: `python -m agent.worker.attempt PROVIDER HEIGHT WIDTH THREADS PARENT`.

The model comes on standard input. It ends with 0 once it has computed a strip; else it says why not on standard output,
or crashes, which says enough.
"""

from __future__ import annotations

import os
import sys

from agent.worker.process import die_with_the_supervisor


def main() -> int:
    """Open the model, compute one strip of zeros."""
    provider, height, width, threads, parent = sys.argv[1], *map(int, sys.argv[2:6])
    die_with_the_supervisor(parent)
    words = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # libraries print what they like

    # Imported here: after the death signal is armed.
    import numpy as np  # noqa: PLC0415

    from agent.worker.providers import open_on  # noqa: PLC0415
    from agent.worker.unusable import Unusable  # noqa: PLC0415

    try:
        compute = open_on(provider, sys.stdin.buffer.read(), (height, width), threads or None)
        compute(np.zeros((1, 3, height, width), np.float32))
    except Unusable as why:
        os.write(words, str(why).encode())
        return 1
    return 0


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)  # a provider's threads may not end
