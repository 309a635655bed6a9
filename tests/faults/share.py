"""A share that another machine writes to: what it does there raises no file events here. Linux FUSE; needs root.

Nothing is remembered by the kernel: every look at a file asks the server. A share that hangs for ever is this process,
stopped; like a hard mounted network share it lets a waiting process be killed.

    python -m tests.faults.share MOUNTPOINT     then a line of JSON on stdin for each command, answered by `{}`:
    {"put": SOURCE, "names": [NAME...]}     the other machine copies a file of this one to these names
    {"remove": NAME}                        it removes one
    {"lose": NAME, "at_byte": N}            it removes one while we read it: when we ask for what lies behind that byte
    {"slow": BYTES}                         no more than so many bytes a second are read or written from now on; 0: as
                                            it can
    {"fail": ERRNO}                         every change fails with that from now on; 0: none does
    {"end": 0}                              unmount and leave
"""

from __future__ import annotations

import errno
import json
import os
import selectors
import stat
import struct
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.faults.forgetful import Mount, RefusedError, Tree

if TYPE_CHECKING:
    from tests.faults.forgetful import Node

READ, WRITE = 15, 16


class OthersTree(Tree):
    """Files that change without the kernel's knowing: nothing it is told stays valid."""

    def entry(self, node: Node) -> bytes:
        """Return the kernel's fuse_entry_out."""
        return struct.pack("<QQQQII", node.number, 0, 0, 0, 0, 0) + self.attributes(node)

    def attr(self, number: int) -> bytes:
        """GETATTR."""
        return struct.pack("<QII", 0, 0, 0) + self.attributes(self.nodes[number])

    def put(self, name: bytes, content: bytes) -> None:
        """Let a whole file appear."""
        node = self.make(stat.S_IFREG | 0o644)
        node.data = bytearray(content)
        self.root.names[name] = node

    def take_away(self, name: bytes) -> None:
        """Let a file vanish; whoever has it open gets ESTALE."""
        del self.nodes[self.root.names.pop(name).number]


class Share(Mount):
    """The tree, mounted."""

    def __init__(self, tree: OthersTree, place: str) -> None:
        super().__init__(tree, place)
        self.tree = tree
        self.lost: dict[bytes, int] = {}
        self.bytes_per_second = 0

    def obey(self, command: dict[str, Any]) -> None:
        """Do what the other machine does."""
        if "put" in command:
            content = Path(command["put"]).read_bytes()
            for name in command["names"]:
                self.tree.put(os.fsencode(name), content)
        elif "remove" in command:
            self.tree.take_away(os.fsencode(command["remove"]))
        elif "lose" in command:
            self.lost[os.fsencode(command["lose"])] = command["at_byte"]
        elif "slow" in command:
            self.bytes_per_second = command["slow"]
        elif "fail" in command:
            self.tree.failing = command["fail"]

    def _do(self, opcode: int, number: int, body: bytes, uid: int, gid: int) -> bytes | None:
        if opcode in {READ, WRITE}:
            _, offset, size = struct.unpack_from("<QQI", body)
            if self.bytes_per_second:
                time.sleep(size / self.bytes_per_second)
            for name, at_byte in list(self.lost.items()):
                if self.tree.root.names[name].number == number and offset + size > at_byte:
                    del self.lost[name]
                    self.tree.take_away(name)
                    raise RefusedError(errno.ESTALE)
        return super()._do(opcode, number, body, uid, gid)


def main() -> None:
    """Serve until told to end."""
    share = Share(OthersTree(), sys.argv[1])
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin.buffer.fileno(), selectors.EVENT_READ)
    selector.register(share.descriptor, selectors.EVENT_READ)
    print("{}", flush=True)  # noqa: T201 - the answer
    while True:
        for key, _ in selector.select():
            if key.fd == share.descriptor:
                share.answer()
                continue
            line = sys.stdin.readline()
            command = json.loads(line) if line else {"end": 0}
            if "end" in command:
                share.cut()
                return
            share.obey(command)
            print("{}", flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
