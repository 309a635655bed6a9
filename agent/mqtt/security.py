"""Whom the agent trusts, and the certificate with which it proves who it is."""

from __future__ import annotations

import select
import ssl
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

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
    """TLS 1.2 or newer, the broker's name is always checked. Raises OSError when a file cannot be read or is no key.

    The files are read anew for each connection: what was renewed on the disk serves from the next one on.
    """
    context = ssl.create_default_context(cafile=None if tls.ca_file is None else str(tls.ca_file))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Python 3.13 has begun to ask for extensions that authorities made by openssl's usual recipe lack.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.sslsocket_class = _TlsSocket
    if tls.cert_file is not None and tls.key_file is not None:
        _demand_secrecy(tls.key_file)
        # The empty password keeps OpenSSL from asking for one on a terminal that is not there.
        context.load_cert_chain(tls.cert_file, tls.key_file, password="")
    return context


def _demand_secrecy(key_file: Path) -> None:
    """Raise PermissionError where every user of the box could take the key, and its identity with it."""
    if key_file.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
        raise PermissionError(f"mqtt.tls.key_file: {key_file} is open to every user of this box; `chmod o= {key_file}`")
