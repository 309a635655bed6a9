"""A file system in memory that forgets at a power cut what was not flushed. Linux FUSE, spoken directly; needs root.

What is written is seen at once. What survives a cut is decided pessimistically, as POSIX allows it and as no kind file
system does it: bytes and sizes of a file only by fsync(file), names (creation, removal, renaming) only by
fsync(folder); a file's fsync does not make its name durable, and a renaming between two folders is two changes. Of what
was not flushed a random part may have reached the disk all the same, out of order and torn at sectors of 512 bytes.

    python -m tests.faults.forgetful MOUNTPOINT     then a line on stdin for each command, answered by a line of JSON:
    cut SEED     lose the power: what was not flushed is gone, whoever still has files open gets errors; mount again
    fail ERRNO   every change and every flush fails with that from now on (0: none does)
    end          unmount and leave

Source of the protocol: the kernel's include/uapi/linux/fuse.h.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import random
import selectors
import stat
import struct
import sys
import time
from dataclasses import dataclass, field

SECTOR = 512
MAX_WRITE = 128 << 10
ROOT = 1
_IN = struct.Struct("<IIQQIIIHH")
_OUT = struct.Struct("<IiQ")
_ATTR = struct.Struct("<QQQQQQIIIIIIIIII")
_FOR_EVER = 3600  # seconds: this mount is the only way to the files
_KEEP_CACHE = 2
_MNT_DETACH = 2
_CHANGES = {4, 8, 9, 10, 11, 12, 16, 20, 30, 35, 45}  # requests that change something or flush

Name = bytes
WriteOp = tuple[int, bytes | None]  # at this offset these bytes; None: cut or extended to this size
NameOp = dict[Name, "Node | None"]


@dataclass(eq=False)
class Node:
    """A file, folder or socket: what everybody sees, what is on the disk, and what is under way."""

    number: int
    mode: int
    names: dict[Name, Node] = field(default_factory=dict)
    names_on_disk: dict[Name, Node] = field(default_factory=dict)
    names_under_way: list[NameOp] = field(default_factory=list)
    data: bytearray = field(default_factory=bytearray)
    data_on_disk: bytearray = field(default_factory=bytearray)
    data_under_way: list[WriteOp] = field(default_factory=list)
    mtime_ns: int = field(default_factory=time.time_ns)
    uid: int = 0
    gid: int = 0

    def change_names(self, change: NameOp) -> None:
        """Make a change of names that is seen at once and waits for a flush."""
        _apply_names(self.names, change)
        self.names_under_way.append(change)
        self.mtime_ns = time.time_ns()

    def change_data(self, change: WriteOp) -> None:
        """Make a change of bytes that is seen at once and waits for a flush."""
        _apply_data(self.data, change)
        self.data_under_way.append(change)
        self.mtime_ns = time.time_ns()

    def flush(self) -> None:
        """Put everything of this node on the disk."""
        for names in self.names_under_way:
            _apply_names(self.names_on_disk, names)
        for data in self.data_under_way:
            _apply_data(self.data_on_disk, data)
        self.names_under_way.clear()
        self.data_under_way.clear()

    def lose_power(self, rng: random.Random, luck: float) -> int:
        """Forget what is not on the disk; `luck` is the chance that it got there unflushed. Return how much is lost."""
        lost = 0
        for names in self.names_under_way:  # a folder's changes are kept in order
            if rng.random() >= luck:
                break
            _apply_names(self.names_on_disk, names)
        else:
            self.names_under_way.clear()
        lost += len(self.names_under_way)
        for offset, content in self.data_under_way:
            if rng.random() >= luck:
                lost += 1
            elif content is None or len(content) <= SECTOR:
                _apply_data(self.data_on_disk, (offset, content))
            else:
                torn = content[: rng.randrange(SECTOR, len(content) + SECTOR, SECTOR)]
                _apply_data(self.data_on_disk, (offset, torn))
        self.names_under_way.clear()
        self.data_under_way.clear()
        self.names = dict(self.names_on_disk)
        self.data = bytearray(self.data_on_disk)
        return lost


def _apply_names(names: dict[Name, Node], change: NameOp) -> None:
    for name, node in change.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


def _apply_data(data: bytearray, change: WriteOp) -> None:
    offset, content = change
    if content is None:
        del data[offset:]
        data.extend(bytes(offset - len(data)))
        return
    if len(data) < offset:
        data.extend(bytes(offset - len(data)))
    data[offset : offset + len(content)] = content


class RefusedError(Exception):
    """Answered with this errno."""

    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(number))
        self.number = number


class Tree:
    """The nodes, and one method for each request of the kernel; each returns the body of the answer."""

    def __init__(self) -> None:
        self.nodes: dict[int, Node] = {}
        self.last = 0
        self.root = self.make(stat.S_IFDIR | 0o755)
        self.failing = 0  # the errno of every change

    def make(self, mode: int, uid: int = 0, gid: int = 0) -> Node:
        """Make a node without a name."""
        self.last += 1
        node = Node(self.last, mode, uid=uid, gid=gid)
        self.nodes[node.number] = node
        return node

    def lose_power(self, seed: int) -> dict[str, int]:
        """Forget what was not flushed; return what there was to forget."""
        rng = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
        luck = rng.choice((0.0, 0.0, 0.5, 0.9))
        lost = sum(node.lose_power(rng, luck) for node in list(self.nodes.values()))
        self.nodes = {}
        waiting = [self.root]
        while waiting:
            node = waiting.pop()
            self.nodes[node.number] = node
            waiting += node.names.values()
        return {"lost": lost, "files": len(self.nodes)}

    # -- names

    def child(self, parent: int, name: Name) -> Node:
        """Return the node of that name."""
        found = self.nodes[parent].names.get(name)
        if found is None:
            raise RefusedError(errno.ENOENT)
        return found

    def lookup(self, parent: int, body: bytes) -> bytes:
        """LOOKUP."""
        return self.entry(self.child(parent, body[:-1]))

    def add(self, parent: int, name: Name, mode: int, uid: int, gid: int) -> Node:
        """Make a node with a name."""
        if name in self.nodes[parent].names:
            raise RefusedError(errno.EEXIST)
        node = self.make(mode, uid, gid)
        self.nodes[parent].change_names({name: node})
        return node

    def remove(self, parent: int, body: bytes) -> bytes:
        """UNLINK and RMDIR."""
        name = body[:-1]
        if self.child(parent, name).names:
            raise RefusedError(errno.ENOTEMPTY)
        self.nodes[parent].change_names({name: None})
        return b""

    def rename(self, parent: int, target: int, body: bytes, flags: int = 0) -> bytes:
        """RENAME and RENAME2."""
        old, new = body.split(b"\0")[:2]
        node = self.child(parent, old)
        if flags & ~1:
            raise RefusedError(errno.EINVAL)
        if flags and new in self.nodes[target].names:  # RENAME_NOREPLACE
            raise RefusedError(errno.EEXIST)
        if parent == target:
            self.nodes[parent].change_names({old: None, new: node})
        else:
            self.nodes[target].change_names({new: node})
            self.nodes[parent].change_names({old: None})
        return b""

    def list_folder(self, number: int, offset: int, size: int) -> bytes:
        """READDIR."""
        listed = b""
        names = [(b".", self.nodes[number]), (b"..", self.root), *self.nodes[number].names.items()]
        for place, (name, node) in enumerate(names[offset:], start=offset + 1):
            entry = struct.pack("<QQII", node.number, place, len(name), stat.S_IFMT(node.mode) >> 12) + name
            entry += bytes(-len(entry) % 8)
            if len(listed) + len(entry) > size:
                break
            listed += entry
        return listed

    # -- attributes

    def attributes(self, node: Node) -> bytes:
        """Return the kernel's fuse_attr."""
        seconds, nanoseconds = divmod(node.mtime_ns, 10**9)
        size, links = len(node.data), 2 if stat.S_ISDIR(node.mode) else 1
        return _ATTR.pack(
            node.number, size, -(-size // SECTOR), seconds, seconds, seconds, nanoseconds, nanoseconds, nanoseconds,
            node.mode, links, node.uid, node.gid, 0, 4096, 0,
        )  # fmt: skip

    def entry(self, node: Node) -> bytes:
        """Return the kernel's fuse_entry_out."""
        return struct.pack("<QQQQII", node.number, 0, _FOR_EVER, _FOR_EVER, 0, 0) + self.attributes(node)

    def attr(self, number: int) -> bytes:
        """GETATTR."""
        return struct.pack("<QII", _FOR_EVER, 0, 0) + self.attributes(self.nodes[number])

    def set_attributes(self, number: int, body: bytes) -> bytes:
        """SETATTR."""
        node = self.nodes[number]
        valid, _, _, size, _, _, mtime, _, _, mtime_ns, _, mode, _, uid, gid, _ = struct.unpack_from(
            "<IIQQQQQQIIIIIIII", body
        )
        if valid & 1:
            node.mode = stat.S_IFMT(node.mode) | stat.S_IMODE(mode)
        if valid & 2:
            node.uid = uid
        if valid & 4:
            node.gid = gid
        if valid & 8:
            node.change_data((size, None))
        if valid & 32:
            node.mtime_ns = time.time_ns() if valid & 256 else mtime * 10**9 + mtime_ns
        return self.attr(number)

    # -- bytes

    def write(self, number: int, body: bytes) -> bytes:
        """WRITE."""
        _, offset, size = struct.unpack_from("<QQI", body)
        node = self.nodes[number]
        node.change_data((offset, bytes(body[40 : 40 + size])))
        return struct.pack("<II", size, 0)

    def room(self) -> bytes:
        """STATFS."""
        blocks = 0 if self.failing == errno.ENOSPC else 1 << 30
        return struct.pack("<QQQQQIIII6I", 1 << 30, blocks, blocks, 1 << 20, 1 << 20, 4096, 255, 4096, *[0] * 7)


class Mount:
    """One mounting of the tree; after a cut there is a new one."""

    def __init__(self, tree: Tree, place: str) -> None:
        self._tree = tree
        self._place = place
        self.descriptor = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self.descriptor},rootmode=40755,user_id=0,group_id=0,allow_other,default_permissions"
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"forgetful", place.encode(), b"fuse", 6, options.encode()) != 0:  # MS_NOSUID | MS_NODEV
            raise OSError(ctypes.get_errno(), f"cannot mount on {place}")

    def cut(self) -> None:
        """Take the file system away from everybody."""
        os.close(self.descriptor)  # every request from now on fails
        ctypes.CDLL(None).umount2(self._place.encode(), _MNT_DETACH)

    def answer(self) -> None:
        """Answer one request of the kernel."""
        try:
            request = os.read(self.descriptor, MAX_WRITE + 8192)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.EINTR, errno.EAGAIN}:  # the request was taken back
                return
            raise
        _, opcode, unique, number, uid, gid, _, _, _ = _IN.unpack_from(request)
        body = request[_IN.size :]
        try:
            answer, code = self._do(opcode, number, body, uid, gid), 0
        except RefusedError as refused:
            answer, code = b"", -refused.number
        except KeyError:
            answer, code = b"", -errno.ESTALE
        if answer is not None:
            os.write(self.descriptor, _OUT.pack(_OUT.size + len(answer), code, unique) + answer)

    def _do(self, opcode: int, number: int, body: bytes, uid: int, gid: int) -> bytes | None:  # noqa: C901, PLR0911, PLR0912 - a table
        tree = self._tree
        if tree.failing and opcode in _CHANGES:
            raise RefusedError(tree.failing)
        match opcode:
            case 1:
                return tree.lookup(number, body)
            case 2 | 42 | 36:  # FORGET, BATCH_FORGET, INTERRUPT are not answered
                return None
            case 3:
                return tree.attr(number)
            case 4:
                return tree.set_attributes(number, body)
            case 8:  # MKNOD: sockets
                return tree.entry(tree.add(number, body[16:-1], struct.unpack_from("<I", body)[0], uid, gid))
            case 9:
                mode = stat.S_IFDIR | struct.unpack_from("<I", body)[0]
                return tree.entry(tree.add(number, body[8:-1], mode, uid, gid))
            case 10 | 11:
                return tree.remove(number, body)
            case 12:
                return tree.rename(number, struct.unpack_from("<Q", body)[0], body[8:])
            case 45:
                target, flags, _ = struct.unpack_from("<QII", body)
                return tree.rename(number, target, body[16:], flags)
            case 14 | 27:  # OPEN, OPENDIR
                return struct.pack("<QII", 0, _KEEP_CACHE if opcode == 14 else 0, 0)
            case 15:
                _, offset, size = struct.unpack_from("<QQI", body)
                return bytes(tree.nodes[number].data[offset : offset + size])
            case 16:
                return tree.write(number, body)
            case 17:
                return tree.room()
            case 18 | 29:  # RELEASE, RELEASEDIR
                return b""
            case 20 | 30:  # FSYNC, FSYNCDIR
                tree.nodes[number].flush()
                return b""
            case 26:
                return struct.pack(
                    "<IIIIHHIIHHIIH11H", 7, 31, 128 << 10, 1 << 5, 16, 12, MAX_WRITE, 1, 0, 0, 0, 0, *[0] * 12
                )
            case 28:
                _, offset, size = struct.unpack_from("<QQI", body)
                return tree.list_folder(number, offset, size)
            case 35:
                mode = stat.S_IFREG | stat.S_IMODE(struct.unpack_from("<I", body, 4)[0])
                node = tree.add(number, body[16:-1], mode, uid, gid)
                return tree.entry(node) + struct.pack("<QII", 0, _KEEP_CACHE, 0)
        raise RefusedError(errno.ENOSYS)


def main() -> None:
    """Serve until told to end."""
    place = sys.argv[1]
    tree = Tree()
    mount = Mount(tree, place)
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin.fileno(), selectors.EVENT_READ, "command")
    selector.register(mount.descriptor, selectors.EVENT_READ, "kernel")
    print("{}", flush=True)  # noqa: T201 - the answer
    while True:
        for key, _ in selector.select():
            if key.data == "kernel":
                mount.answer()
                continue
            command, _, value = os.read(sys.stdin.fileno(), 100).decode().partition(" ")
            told = {}
            if command.strip() in {"", "end"}:
                mount.cut()
                return
            if command == "fail":
                tree.failing = int(value)
            elif command == "cut":
                selector.unregister(mount.descriptor)
                mount.cut()
                told = tree.lose_power(int(value))
                mount = Mount(tree, place)
                selector.register(mount.descriptor, selectors.EVENT_READ, "kernel")
            print(json.dumps(told), flush=True)  # noqa: T201 - the answer
            break  # the selector's answers may be of the old mount


if __name__ == "__main__":
    main()
