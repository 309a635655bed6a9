"""The page on the box: `web:` of the configuration, and what only this machine can tell about it."""

from __future__ import annotations

import ipaddress
import ssl
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from agent.config.types import AbsolutePath, HostAndPort, SecretPath, Section

if TYPE_CHECKING:
    from collections.abc import Iterator

NEEDED = ("starlette", "uvicorn", "jinja2")


class WebTls(Section):
    """The page's own certificate."""

    cert_file: AbsolutePath
    """Certificate that browsers are shown, with those in between behind it, as PEM."""
    key_file: AbsolutePath
    """Its key, as PEM without a passphrase."""


class WebSection(Section):
    """The page on the box, see docs/web.md; needs the extra `web`. *restart* is that of `strip-agent-web` alone."""

    enabled: bool = False
    """`strip-agent web` serves the page; a process and a unit of its own, without which nothing else changes."""
    listen: HostAndPort = "127.0.0.1:8080"
    """Where the page is served. Beyond this machine only with `password_file`."""
    password_file: SecretPath | None = None
    """File with the password that the page asks for, in plain text or as the line that `strip-agent web --hash` makes;
    a bare name is looked up among systemd's credentials first. null: whoever reaches the page may read it."""
    tls: WebTls | None = None
    """Serve the page by HTTPS: `{cert_file: ..., key_file: ...}`, absolute paths of PEM files; null: by HTTP."""
    language: Literal["auto", "en", "zh-TW"] = "auto"
    """Language of the page; `auto`: as the browser asks for."""
    reviews: bool = True
    """Whoever sees the page may say of a strip: defect, no defect, unsure."""

    def broken_rules(self) -> Iterator[tuple[str, str]]:
        """Demand a password where others than this machine reach the page."""
        if not is_loopback(host_of(self.listen)) and self.password_file is None:
            yield "password_file", f"`listen: {self.listen}` is reached by other machines, which needs a password here"


def host_of(listen: str) -> str:
    """Return the host of HOST:PORT, without the brackets of IPv6."""
    return listen.rpartition(":")[0].strip("[]")


def is_loopback(host: str) -> bool:
    """Say whether only this machine reaches an address. A name other than localhost may mean any."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def missing_packages() -> list[str]:
    """Name the packages of the extra `web` that are not installed."""
    return [name for name in NEEDED if find_spec(name) is None]


def tls_context(tls: WebTls) -> ssl.SSLContext:
    """Load the certificate and its key as the server will. Raises OSError (ssl.SSLError too)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(tls.cert_file, tls.key_file, password="")
    return context
