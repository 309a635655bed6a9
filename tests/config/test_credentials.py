"""What the box shows to the broker is loaded before the service needs it: each mistake has its own sentence."""

from __future__ import annotations

import datetime as dt
import os
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import PrivateFormat

from agent.config import Config
from agent.config.credentials import credential_problems
from tests.helpers.certificates import make_authority, make_pair

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NO_CERTIFICATE = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
NOW = dt.datetime.now(dt.UTC)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Write an authority, a pair that it signed and another pair."""
    authority = make_authority(tmp_path, "ca")
    make_pair(tmp_path, "client", authority)
    make_pair(tmp_path, "other", authority)
    for file in tmp_path.iterdir():
        file.chmod(0o600)
    return tmp_path


def problems(folder: Path, now: dt.datetime = NOW, **mqtt: Any) -> list[tuple[str, str, bool]]:
    """Return (key below mqtt.tls, sentence, whether it is a warning)."""
    tls = {"enabled": True, "ca_file": f"{folder}/ca.crt"}
    tls |= {"cert_file": f"{folder}/client.crt", "key_file": f"{folder}/client.key"}
    config = Config.model_validate(
        {"cameras": [{"name": "top", "folder": "/srv/top"}], "mqtt": {"port": 8883, "tls": tls, **mqtt}}
    )
    found = credential_problems(config, {}, now)
    return [(p.where.removeprefix("mqtt.").removeprefix("tls."), p.message, p.warning) for p in found]


def test_good_files_have_no_problem(files: Path) -> None:
    """PEM, no passphrase, certificate and key belong together, nothing ends soon."""
    assert problems(files) == []


def encrypt(folder: Path, form: PrivateFormat) -> None:
    """Protect the client's key by a passphrase."""
    key = serialization.load_pem_private_key((folder / "client.key").read_bytes(), None)
    protection = serialization.BestAvailableEncryption(b"hunter2")
    (folder / "client.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, protection))


def to_der(folder: Path, name: str) -> None:
    """Write a file in DER form, as Windows and many devices do."""
    content = (folder / name).read_bytes()
    if name.endswith(".crt"):
        (folder / name).write_bytes(x509.load_pem_x509_certificate(content).public_bytes(serialization.Encoding.DER))
        return
    key = serialization.load_pem_private_key(content, None)
    plain = (serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / name).write_bytes(key.private_bytes(*plain))


def swap(folder: Path, one: str, other: str) -> None:
    """Give two files each other's names."""
    (folder / one).rename(folder / "aside")
    (folder / other).rename(folder / one)
    (folder / "aside").rename(folder / other)


def with_bom(folder: Path, name: str) -> None:
    """Save it as some editors do."""
    (folder / name).write_bytes(b"\xef\xbb\xbf" + (folder / name).read_bytes())


def to_fifo(folder: Path) -> None:
    """Put something in a file's place that opening waits for."""
    (folder / "ca.crt").unlink()
    os.mkfifo(folder / "ca.crt")


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda folder: encrypt(folder, PrivateFormat.PKCS8), {"key_file": "passphrase"}),
        (lambda folder: encrypt(folder, PrivateFormat.TraditionalOpenSSL), {"key_file": "passphrase"}),
        (lambda folder: to_der(folder, "ca.crt"), {"ca_file": "certificate in DER form"}),
        (lambda folder: to_der(folder, "client.crt"), {"cert_file": "openssl x509 -inform DER"}),
        (lambda folder: to_der(folder, "client.key"), {"key_file": "openssl pkey -inform DER"}),
        (
            lambda folder: swap(folder, "client.crt", "client.key"),
            {"cert_file": "holds a private key; needed is a certificate", "key_file": "holds a certificate"},
        ),
        (lambda folder: swap(folder, "client.key", "other.key"), {"key_file": "does not belong to"}),
        (lambda folder: with_bom(folder, "ca.crt"), {"ca_file": "byte order mark"}),
        (lambda folder: with_bom(folder, "client.key"), {"key_file": "byte order mark"}),
        (lambda folder: (folder / "ca.crt").write_text("x"), {"ca_file": "no certificate in PEM form"}),
        (lambda folder: (folder / "client.crt").unlink(), {"cert_file": "No such file"}),
        (lambda folder: (folder / "ca.crt").write_text(NO_CERTIFICATE), {"ca_file": "cannot be used"}),
        (lambda folder: ((folder / "ca.crt").unlink(), (folder / "ca.crt").mkdir()), {"ca_file": "no regular file"}),
        (to_fifo, {"ca_file": "no regular file"}),
    ],
)  # fmt: skip
def test_each_mistake_with_a_tls_file_has_its_own_sentence(
    files: Path, spoil: Callable[[Path], object], expected: dict[str, str]
) -> None:
    """Encrypted, DER, swapped, of another pair, with a byte order mark, missing, no file: named and explained."""
    spoil(files)
    found = problems(files)
    assert [where for where, _, _ in found] == list(expected)
    for where, sentence, warning in found:
        assert expected[where] in sentence
        assert str(files) in sentence or "cannot be used" in sentence
        assert warning == ("No such file" in sentence), "what is missing may come by itself"
        assert "hunter2" not in sentence


@pytest.mark.parametrize(
    ("days", "said"),
    [(-1, "expired on"), (29, "in 29 days: renew it"), (31, None)],
)
def test_a_certificate_that_ends_is_told_a_month_before(tmp_path: Path, days: int, said: str | None) -> None:
    """A warning: strips are judged whatever the broker thinks, and one that has expired may be renewed meanwhile."""
    authority = make_authority(tmp_path, "ca", days=days + 0.5, from_days=-100)
    make_pair(tmp_path, "client", authority, days=days + 0.5, from_days=-100)
    (tmp_path / "client.key").chmod(0o600)
    found = problems(tmp_path)
    assert [where for where, _, _ in found] == ([] if said is None else ["ca_file", "cert_file"])
    assert all(said in sentence and warning for _, sentence, warning in found if said)


def test_a_certificate_that_does_not_hold_yet_makes_the_clock_suspicious(files: Path) -> None:
    """A box whose clock is behind refuses every broker; one without any clock says nothing."""
    found = problems(files, NOW - dt.timedelta(days=30))
    assert found
    assert all("is the clock right?" in sentence for _, sentence, _ in found)
    assert problems(files, dt.datetime(1970, 1, 2, tzinfo=dt.UTC)) == []


def test_of_a_bundle_one_authority_that_holds_is_enough(files: Path) -> None:
    """Systems ship bundles with expired authorities in them."""
    make_authority(files, "old", days=-10, from_days=-100)
    (files / "ca.crt").write_bytes((files / "old.crt").read_bytes() + (files / "ca.crt").read_bytes())
    assert problems(files) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xef\xbb\xbfhunter2\n", "byte order mark"),
        (b"hunter2\n\n", "more than one line"),
        (b"hunter2\nhunter2", "more than one line"),
        (b" hunter2", "a space"),
        (b"hunter2\n", None),
        (b"hun ter2\r\n", None),
    ],
)
def test_what_an_editor_adds_to_a_password_is_told(files: Path, content: bytes, said: str | None) -> None:
    """It is sent as it is, for it may be meant; the warning names the file and never what is in it."""
    (files / "password").write_bytes(content)
    (files / "password").chmod(0o600)
    found = problems(files, username="u", password_file=str(files / "password"))
    assert len(found) == (said is not None)
    assert all(said in sentence and warning and "hunter2" not in sentence for _, sentence, warning in found if said)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody who may not read")
def test_a_file_that_may_not_be_read_is_told(files: Path) -> None:
    """The service's user, not the one who wrote the file, has to read it."""
    os.chown(files, 65534, 65534)
    os.seteuid(65534)
    try:
        found = problems(files)
    finally:
        os.seteuid(0)
    assert [where for where, _, _ in found] == ["ca_file", "cert_file", "key_file"]
    assert all("cannot be read by user 65534: Permission denied" in sentence for _, sentence, _ in found)
