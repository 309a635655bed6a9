"""Whom the agent trusts, and the certificate with which it proves who it is."""

from __future__ import annotations

import select
import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.config import Tls


_ALERT_SECONDS = 0.5  # for what the other side says about our certificate


class _TlsSocket(ssl.SSLSocket):
    """Closes itself when the handshake fails; paho only drops it."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
            if self.version() == "TLSv1.3":
                self._hear_alert()
        except BaseException:
            self.close()
            raise

    def _hear_alert(self) -> None:
        """Wait for a broker that refuses our certificate, or that we have none; raises ssl.SSLError then.

        With TLS 1.3 the handshake has ended for us before the broker has looked at it. Were CONNECT sent now, the
        broker's hanging up on it could swallow the reason. A broker sends nothing of its own before CONNECT: what comes
        are session tickets or an alert.
        """
        patience = self.gettimeout()
        if select.select([self], [], [], _ALERT_SECONDS)[0]:
            self.settimeout(0.0)
            try:
                self.recv(1)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return  # tickets: it let us in
            finally:
                self.settimeout(patience)
            raise ConnectionResetError("the broker hung up after the TLS handshake")


def tls_context(tls: Tls) -> ssl.SSLContext:
    """TLS 1.2 or newer, the broker's name is always checked. Raises OSError when a file cannot be read or is no key."""
    context = ssl.create_default_context(cafile=None if tls.ca_file is None else str(tls.ca_file))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = _TlsSocket
    if tls.cert_file is not None:
        # The empty password keeps OpenSSL from asking for one on a terminal that is not there.
        context.load_cert_chain(tls.cert_file, tls.key_file, password="")
    return context
