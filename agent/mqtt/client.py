"""paho's client, with two things that it lacks: a limit to what it takes in, and a word about why reading failed."""

from __future__ import annotations

import ssl

import paho.mqtt.client as paho

INCOMING_LIMIT_BYTES = 65536  # nobody has anything longer to say to this agent


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
    return f"{type(error).__name__}: {error}" + (f" ({meaning})" if meaning else "")
