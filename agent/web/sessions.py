"""Who is logged in, and the token that a post has to carry. Sessions live in memory: a restart logs everybody out.

There is one password, the page's own. The file holds it in plain text, or as `scrypt:<salt>:<hash>` (hexadecimal),
which `strip-agent web --hash` makes.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

COOKIE = "strip_agent_session"
MAX_SESSIONS = 500
SESSION_SECONDS = 12 * 3600.0  # without a request
_PREFIX = "scrypt:"


@dataclass(slots=True)
class Session:
    """A browser. `csrf` is what its posts have to carry; `used_at` is monotonic seconds."""

    csrf: str
    used_at: float
    logged_in: bool


class Sessions:
    """All sessions; the one that was used longest ago makes room."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def find(self, token: str) -> Session | None:
        """Return the session of a cookie, None where it is none or was not used for long."""
        found = self._sessions.get(token)
        if found is None:
            return None
        now = self._clock()
        if now - found.used_at > SESSION_SECONDS:
            del self._sessions[token]
            return None
        found.used_at = now
        self._sessions.move_to_end(token)
        return found

    def begin(self, *, logged_in: bool) -> tuple[str, Session]:
        """Begin a session; return its cookie's value and itself."""
        token = secrets.token_urlsafe(32)
        session = Session(secrets.token_urlsafe(32), self._clock(), logged_in)
        self._sessions[token] = session
        if len(self._sessions) > MAX_SESSIONS:
            strangers = (one for one, session in self._sessions.items() if not session.logged_in)
            del self._sessions[next(strangers, next(iter(self._sessions)))]
        return token, session

    def end(self, token: str) -> None:
        """Log out."""
        self._sessions.pop(token, None)


def is_token(session: Session, sent: str) -> bool:
    """Say whether a post carries its session's token."""
    return hmac.compare_digest(session.csrf.encode(), sent.encode(errors="replace"))


def hash_password(password: str) -> str:
    """Return the line that may stand in the password's file instead of the password."""
    salt = secrets.token_bytes(16)
    return f"{_PREFIX}{salt.hex()}:{_scrypt(password, salt).hex()}"


def is_password(sent: str, stored: str) -> bool:
    """Compare in a time that tells nothing. `stored` is the file's text. It takes about 50 ms."""
    salt = b"strip-agent"
    if stored.startswith(_PREFIX):
        try:
            salt, wanted = map(bytes.fromhex, stored.removeprefix(_PREFIX).split(":"))
        except ValueError:
            return False
    else:
        wanted = _scrypt(stored, salt)
    return hmac.compare_digest(_scrypt(sent, salt), wanted)


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(
        password.encode(errors="backslashreplace"), salt=salt, n=1 << 14, r=8, p=1, maxmem=64 << 20, dklen=32
    )
