"""What the box shows to the broker and what it trusts: certificates, keys, the password. Loaded as the service will."""

from __future__ import annotations

import contextlib
import os
import re
import ssl
import stat
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_der_public_key

from agent.config.certificate import JUDGED, Validity, read_file, validity_of
from agent.config.file import ConfigError, Problem
from agent.config.secret_files import read_secret, secret_path

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from agent.config import Config, Tls

UNTIL_THEN = "until it can be read strips are scored, and their results wait in the outbox"
BOM = b"\xef\xbb\xbf"
_LABEL = re.compile(rb"^-----BEGIN ([A-Z0-9 ]+)-----", re.MULTILINE)
_WANTED = {"ca_file": "certificate", "cert_file": "certificate", "key_file": "private key"}


def credential_problems(config: Config, environ: Mapping[str, str], now: dt.datetime) -> Iterator[Problem]:
    """Return what is wrong with the files of `mqtt.tls` and with the password; nothing of what is in them is shown."""
    yield from _tls_problems(config.mqtt.tls, now)
    yield from _password_problems(config.mqtt.password_file, environ)
    secrets = (
        ("mqtt.password_file", config.mqtt.password_file, ""),
        ("mqtt.tls.key_file", config.mqtt.tls.key_file, "; until then the broker is not talked to"),
    )
    for where, path, cost in secrets:
        if path is None:
            continue
        secret = secret_path(path, environ)
        with contextlib.suppress(OSError):  # not there, or not for this user: told already
            if secret.stat().st_mode & stat.S_IROTH:
                yield Problem(
                    None, where, f"{secret} can be read by every user; `chmod o= {secret}`{cost}", warning=True
                )


def _tls_problems(tls: Tls, now: dt.datetime) -> Iterator[Problem]:
    contents: dict[str, bytes] = {}
    broken = False
    for name, wanted in _WANTED.items():
        path = getattr(tls, name)
        if path is None:
            continue
        try:
            contents[name] = read_file(path)
            wrong, warning = _wrong_content(path, contents[name], wanted), False
        except OSError as error:
            wrong = f"{path} cannot be read by user {os.geteuid()}: {error.strerror or error}"
            if warning := error.errno != 0:  # 0: it is there, and no file
                wrong += f"; {UNTIL_THEN}"
        if wrong:
            broken = True
            yield Problem(None, f"mqtt.tls.{name}", wrong, warning=warning)
    unloadable = [] if broken else [*_unloadable(tls)]
    yield from unloadable
    if not broken and not unloadable:
        for name in JUDGED:
            if name in contents:
                yield from _expiry(f"mqtt.tls.{name}", getattr(tls, name), contents[name], now)


def _wrong_content(path: Path, content: bytes, wanted: str) -> str:
    """Say what is in the file instead of what is wanted, in PEM form; "" where that is there."""
    labels = [label.decode() for label in _LABEL.findall(content)]
    if content.startswith(BOM):
        return f"{path} begins with a byte order mark, as some editors write it: save it as UTF-8 without one"
    if wanted == "private key" and ("ENCRYPTED PRIVATE KEY" in labels or b"Proc-Type: 4,ENCRYPTED" in content):
        return (
            f"{path} is protected by a passphrase, which nobody types in when the service starts: write one without, "
            f"readable by the service alone (`openssl pkey -in {path} -out ...`)"
        )
    kinds = {"private key" if label.endswith("PRIVATE KEY") else label.lower() for label in labels}
    if wanted in kinds:
        return ""
    if kinds:
        return f"{path} holds a {kinds.pop()}; needed is a {wanted}: are two files swapped?"
    der = _kind_of_der(content)
    if der:
        tool = "x509" if der == "certificate" else "pkey"
        return f"{path} holds a {der} in DER form; needed is PEM: `openssl {tool} -inform DER -in {path} -out ...`"
    return f"{path} holds no {wanted} in PEM form (-----BEGIN ...-----)"


def _kind_of_der(content: bytes) -> str:
    try:
        x509.load_der_x509_certificate(content)
    except ValueError:
        pass
    else:
        return "certificate"
    try:
        load_der_private_key(content, password=None)
    except TypeError:  # it is encrypted
        return "private key"
    except ValueError:
        pass
    else:
        return "private key"
    try:
        load_der_public_key(content)
    except ValueError:
        return ""
    return "public key"


def _unloadable(tls: Tls) -> Iterator[Problem]:
    where, context = "mqtt.tls.ca_file", ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if tls.ca_file is not None:
            context.load_verify_locations(tls.ca_file)
        if tls.cert_file is not None:
            where = "mqtt.tls.cert_file"
            context.load_cert_chain(tls.cert_file, tls.key_file, password="")
    except OSError as error:
        if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
            yield Problem(None, "mqtt.tls.key_file", f"{tls.key_file} does not belong to {tls.cert_file}")
        else:
            yield Problem(None, where, f"cannot be used: {error}")


def _expiry(where: str, path: Path, content: bytes, now: dt.datetime) -> Iterator[Problem]:
    """Warn of a certificate that does not hold now or soon."""
    try:
        validity = validity_of(where, content)
    except ValueError as error:
        yield Problem(None, where, f"{path} cannot be read: {error}")
        return
    if said := _said(validity, now):
        yield Problem(None, where, f"{path} {said}", warning=True)


def _said(validity: Validity, now: dt.datetime) -> str:
    day = f"{validity.ends:%Y-%m-%d}"
    match validity.state(now):
        case "expired":
            return f"expired on {day}; the broker will not be talked to"
        case "expires_soon":
            return f"expires on {day}, in {(validity.ends - now).days} days: renew it"
        case "not_yet":
            return f"holds only from {validity.begins:%Y-%m-%d} on; is the clock right?"
        case "holds":
            return ""


def _password_problems(file: Path | None, environ: Mapping[str, str]) -> Iterator[Problem]:
    if file is None:
        return
    where = "mqtt.password_file"
    try:
        password = read_secret(file, environ)
    except ConfigError as error:
        away = isinstance(error.__cause__, OSError)
        for one in error.problems:
            message = f"{one.where} {one.message}{f'; {UNTIL_THEN}' if away else ''}"
            yield Problem(None, where, message, warning=away)
        return
    path = secret_path(file, environ)
    if password.startswith(BOM.decode()):
        message = f"{path} begins with a byte order mark, which is sent as part of the password: save it without one"
        yield Problem(None, where, message, warning=True)
    if "\n" in password or "\r" in password:
        message = f"{path} has more than one line: all but the last line break is sent as part of the password"
        yield Problem(None, where, message, warning=True)
    if password != password.strip(" \t"):
        message = f"{path} begins or ends with a space, which is sent as part of the password"
        yield Problem(None, where, message, warning=True)
