"""What the certificates of `mqtt.tls` say: how long they hold, and whose they are."""

from __future__ import annotations

import datetime as dt
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cryptography import x509
from cryptography.x509.oid import NameOID

from agent.clock import BUILT_MS

if TYPE_CHECKING:
    from pathlib import Path

SOON = dt.timedelta(days=30)
JUDGED = ("ca_file", "cert_file")
"""Keys of `mqtt.tls` whose files hold certificates."""

State = Literal["holds", "expires_soon", "expired", "not_yet"]


MAX_FILE_BYTES = 4 << 20  # a system's whole bundle of authorities has a quarter of it


@dataclass(frozen=True, slots=True)
class Validity:
    """From when to when a certificate holds, UTC."""

    begins: dt.datetime
    ends: dt.datetime

    def state(self, now: dt.datetime) -> State:
        """Judge it; whoever does not know the time (a clock before this software was made) cannot tell."""
        if now.timestamp() * 1000 < BUILT_MS:
            return "holds"
        if self.ends <= now:
            return "expired"
        if self.begins > now:
            return "not_yet"
        return "expires_soon" if self.ends <= now + SOON else "holds"


def read_file(path: Path) -> bytes:
    """Read a file with certificates or a key. Raises OSError; errno 0: it is there, and no file."""
    # Without O_NONBLOCK opening a FIFO would wait for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(0, "it is no regular file")
        return os.read(descriptor, MAX_FILE_BYTES)
    finally:
        os.close(descriptor)


def validity_of(where: str, content: bytes) -> Validity:
    """Read a file's certificates (PEM): of several authorities the one that holds for longest, else the first.

    `where` is the key that names the file, and decides. Raises ValueError where it holds no certificate.
    """
    certificates = x509.load_pem_x509_certificates(content)
    judged = certificates[:1] if where.endswith("cert_file") else certificates
    last = max(judged, key=lambda certificate: certificate.not_valid_after_utc)
    return Validity(last.not_valid_before_utc, last.not_valid_after_utc)


def common_name(content: bytes) -> str:
    """Return the name that a broker may take for the user's; "" where there is none. Raises ValueError as above."""
    found = x509.load_pem_x509_certificates(content)[0].subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""
