"""paho's client, and what it lacks: a limit to what it takes in, why reading failed, a goodbye that arrives."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time

import paho.mqtt.client as paho
from paho.mqtt.enums import _ConnectionState

INCOMING_LIMIT_BYTES = 65536  # nobody has anything longer to say to this agent


_GOODBYE_SECONDS = 1.0  # for the broker to close the connection after DISCONNECT, as most do at once


# What OpenSSL found wrong with the broker's certificate (X509_V_ERR_*), where more can be said of it.
_BY_ANOTHER = "another authority than that of mqtt.tls.ca_file signed the broker's certificate"
_NOT_ITS_NAME = (
    "mqtt.host must be what the broker's certificate names in its subjectAltName; a common name alone does not count"
)
_UNVERIFIED = {
    9: "the broker's certificate holds only from later on; is this box's clock right?",
    10: "the broker's certificate, or the one of its authority, has expired",
    18: _BY_ANOTHER,
    19: _BY_ANOTHER,
    20: _BY_ANOTHER,
    62: _NOT_ITS_NAME,
    64: _NOT_ITS_NAME,
}


class Client(paho.Client):
    """Ends the connection at a packet above the limit, before any of it is read."""

    failure = ""
    """Why reading failed, where paho only says that the connection is lost; "" when nothing of that kind happened."""
    tls_failed = False

    def _sock_recv(self, bufsize: int) -> bytes:
        # paho asks for the rest of a packet at once, so that this is the length that the packet itself states.
        if bufsize > INCOMING_LIMIT_BYTES:
            self.failure = f"the broker sent a packet of {bufsize} bytes; at most {INCOMING_LIMIT_BYTES} are taken"
            raise ConnectionAbortedError(self.failure)
        try:
            return super()._sock_recv(bufsize)
        except ssl.SSLError as error:
            self.tls_failed = True
            self.failure = tls_failure(error)
            raise

    def _sock_close(self) -> None:
        # Closing with bytes unread makes the kernel reset the connection, which can take DISCONNECT with it on its way:
        # the broker would publish the will behind the goodbye.
        link = self.socket()
        if isinstance(link, socket.socket) and self._state == _ConnectionState.MQTT_CS_DISCONNECTING:
            with contextlib.suppress(OSError):  # it is gone already
                link.shutdown(socket.SHUT_WR)
                deadline = time.monotonic() + _GOODBYE_SECONDS
                while (left := deadline - time.monotonic()) > 0:
                    link.settimeout(left)
                    if not link.recv(INCOMING_LIMIT_BYTES):
                        break
        super()._sock_close()


def tls_failure(error: ssl.SSLError) -> str:
    """Say what a TLS alert means for whoever sets up the box."""
    meanings = {
        "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the broker demands a client certificate; see mqtt.tls.cert_file",
        "SSLV3_ALERT_HANDSHAKE_FAILURE": "over TLS 1.2 that may mean that the broker demands a client certificate",
        "SSLV3_ALERT_BAD_CERTIFICATE": "the broker does not accept the certificate of mqtt.tls.cert_file",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the certificate of mqtt.tls.cert_file has expired",
        "SSLV3_ALERT_CERTIFICATE_REVOKED": "the certificate of mqtt.tls.cert_file was revoked",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the broker does not accept the certificate of mqtt.tls.cert_file",
        "TLSV1_ALERT_UNKNOWN_CA": "the broker does not know who signed the certificate of mqtt.tls.cert_file",
        "TLSV1_ALERT_ACCESS_DENIED": "the broker does not let the certificate of mqtt.tls.cert_file in",
        "CERTIFICATE_VERIFY_FAILED": "the broker's certificate does not hold against mqtt.tls.ca_file and mqtt.host",
        "WRONG_VERSION_NUMBER": "the broker does not speak TLS on this port",
    }
    meaning = meanings.get(error.reason or "")
    if isinstance(error, ssl.SSLCertVerificationError):
        meaning = _UNVERIFIED.get(error.verify_code, meaning)
    return f"{type(error).__name__}: {error}" + (f" ({meaning})" if meaning else "")
