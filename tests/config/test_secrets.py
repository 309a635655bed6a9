"""The configuration: secrets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.config.file import ConfigError
from agent.config.secret_files import read_secret


def test_a_secret_loses_one_newline_and_nothing_else(tmp_path: Path) -> None:
    """Editors end files with a newline; spaces can belong to a password."""
    path = tmp_path / "password"
    for written in ("geheim ß \n", "geheim ß \r\n", "geheim ß "):
        path.write_bytes(written.encode())
        assert read_secret(path, {}) == "geheim ß "
    path.write_text("two\n\n")
    assert read_secret(path, {}) == "two\n"


def test_a_bare_name_is_a_systemd_credential_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`password_file: mqtt` means the credential of that name, and a path never does."""
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "mqtt").write_text("from systemd\n")
    (tmp_path / "mqtt").write_text("from the folder\n")
    monkeypatch.chdir(tmp_path)
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")}
    assert read_secret(Path("mqtt"), environ) == "from systemd"
    assert read_secret(Path("mqtt"), {}) == "from the folder"
    assert read_secret(tmp_path / "mqtt", environ) == "from the folder"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"", "is empty"), (b"\n", "is empty"), (b"hunter2" * 10_000, "longer than"), (b"hunter2\xff", "not UTF-8")],
)
def test_a_broken_secret_is_refused_without_showing_it(tmp_path: Path, content: bytes, sentence: str) -> None:
    """The refusal names the file; neither it nor its causes carry what is inside."""
    path = tmp_path / "password"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=sentence) as caught:
        read_secret(path, {})
    assert str(path) in str(caught.value)
    assert "hunter2" not in repr((caught.value, caught.value.__cause__))


def test_a_secret_that_is_no_file_does_not_block(tmp_path: Path) -> None:
    """A FIFO would wait for a writer for ever."""
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ConfigError, match="is not a regular file"):
        read_secret(tmp_path / "fifo", {})
    with pytest.raises(ConfigError, match="No such file"):
        read_secret(tmp_path / "missing", {})
