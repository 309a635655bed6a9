"""Reads jobs, one JSON object a line, from standard input; answers each with a JSON line and the bytes it announces.

It may use little memory, opens no socket, and ends with the page's process. What a hostile file does to it costs one
picture: the page starts another one.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
from typing import Any

from agent.worker.process import die_with_the_supervisor, give_up_the_network

MEMORY_BYTES = 1 << 30
FILES = 64
NICENESS = 15  # strips come first


def main() -> None:
    """Serve until standard input ends."""
    _give_up_rights(int(sys.argv[1]))
    from agent.web.paint.paint import paint  # noqa: PLC0415 - loaded within the limits

    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print
    for line in sys.stdin.buffer:
        head, body = _answer(paint, line)
        answers.write(json.dumps({**head, "size": len(body)}).encode() + b"\n" + body)
        answers.flush()


def _give_up_rights(page: int) -> None:
    die_with_the_supervisor(page)
    give_up_the_network()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(PermissionError):  # the unit forbids it, and is nice itself
        os.nice(NICENESS)


def _answer(paint: Any, line: bytes) -> tuple[dict[str, Any], bytes]:
    from agent.errors import AgentError  # noqa: PLC0415

    try:
        facts, body = paint(json.loads(line))
    except (AgentError, FileNotFoundError) as error:
        return {"ok": False, "error": str(error)}, b""
    except Exception as error:  # noqa: BLE001 - whatever a hostile file leads to is told, and costs one picture
        return {"ok": False, "error": f"{type(error).__name__}: {error}"}, b""
    return {"ok": True, "facts": facts}, body


if __name__ == "__main__":
    main()
