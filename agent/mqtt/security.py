"""Whom the agent trusts, and the certificate with which it proves who it is."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.config import Tls


class _TlsSocket(ssl.SSLSocket):
    """Closes itself when the handshake fails; paho only drops it."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


def tls_context(tls: Tls) -> ssl.SSLContext:
    """TLS 1.2 or newer, the broker's name is always checked. Raises OSError when a file cannot be read or is no key."""
    context = ssl.create_default_context(cafile=None if tls.ca_file is None else str(tls.ca_file))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = _TlsSocket
    if tls.cert_file is not None:
        # The empty password keeps OpenSSL from asking for one on a terminal that is not there.
        context.load_cert_chain(tls.cert_file, tls.key_file, password="")
    return context
