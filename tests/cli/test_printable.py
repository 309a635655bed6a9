"""Whatever came from outside can be printed: no terminal's command, no second line, nothing that turns the writing."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import logging
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli import show
from agent.cli.terminal import complain, say
from agent.config import LogSection
from agent.ledger import open_ledger
from agent.ledger.models import Changes, ModelRecord
from agent.logs import setup
from agent.printable import printable, printable_values
from agent.records import FileIdentity, SettledFile
from tests.helpers.models import difference_model
from tests.helpers.repository import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

HOSTILE = "\x1b[2J\x07\r\nFORGED good\u202e\u2066\x9b31m\x7f\udcff\ud800.\0"
BALANCE = dict.fromkeys(
    ("seen", "pending", "acknowledged", "ok", "anomalous", "invalid", "skipped", "dropped", "waiting"), 1
)
SLOT = {"active_sha256": "a", "active_model_id": "b", "active_version": 1, "golden": "none", "on_probation": True}
FACTS: dict[str, dict[str, Any]] = {
    "status": {
        "version": "1", "agent": "insp1", "running": True, "strips": BALANCE, "staying": {"top": ["x.tif: why"]},
        "outbox": {"outbox_pending": 1, "last_seq": 2}, "seen_again": 1, "abandoned": {"old": 3},
        "health": {"status": "degraded", "alarms": "x,y", "broker_connected": False, "broker_protocol": "",
                   "broker_error": "refused", "delivery": "none", "outbox_oldest_s": 1.0},
        "models": {"default": SLOT | {"previous_sha256": "", "returned": "reason", "problem": ""}},
        "workers": {"default": {"held": "why"}}, "files": {"top": "cannot move"},
        "watching": {"top": {"state": "events", "detail": "d", "error": "e", "ignored": 1, "linked_folders": ["l"]}},
        "config_problems": ["agent.yaml: line 1: x"], "commands_ignored": {"retained": 1},
        "paused": {"top": {"since_ms": 1, "sender": "me"}},
        "thresholds": {"top": {"value": 0.3, "method": "max", "since_ms": 1, "sender": "me"}},
    },
    "audit": {"cameras": {"top": BALANCE}, "strips": BALANCE, "unpublished_not_named": 1, "balanced": False,
              "unpublished": [{"strip_id": "a", "camera": "top", "file": "f", "why": "w"}], "problems": ["p"]},
    "strips": {"strips": [{"strip_id": "a", "camera": "top", "file": "f", "state": "s", "reason": "r", "score": None}],
               "cut": True},
    "strip": {"strip": {"strip_id": "a", "file": "f", "results": [{"seq": 1, "revision": 1, "part_id": "p"}]}},
    "retried": {"retried": ["a"], "refused": {"b": "why"}},
    "resent": {"stream": "a", "to_seq": 9, "queued": 1, "waiting": 1, "purged": [[1, 2], [4, 4]], "last_seq": 8},
    "models": {
        "slots": {"default": SLOT | {"previous_sha256": "p"}}, "postponed": {"default": {"f.onnx": "why"}},
        "models": [{"sha256": "a", "slot": "default", "state": "rejected", "model_id": "m", "version": 1, "file": "f",
                    "reason": "r", "detail": "d", "facts": {"return_detail": "x"}}],
    },
    "paused": {"camera": "top", "changed": False, "since_ms": 1, "sender": "me"},
    "resumed": {"camera": "top", "changed": True},
    "threshold": {"camera": "top", "threshold": None, "source": "model", "without_one": 0.5,
                  "operator": {"value": 0.3, "method": "area", "since_ms": 1, "sender": "me", "in_use": False}},
    "rescanned": {"cameras": ["top"]},
    "requested": {"slot": "default", "sha256": "a"},
    "forgotten": {"slot": "s", "sha256": "a"},
    "verified": {
        "file": "f",
        "good": False,
        "reason": "r",
        "detail": "d",
        "before": [{"slot": "s", "kind": "rejected", "reason": "r", "detail": "d"}],
    },
    "scored": {"verdict": "invalid", "file": "f", "reason": "r", "detail": "d"},
    "findings": {"findings": [{"level": "good", "what": "w", "detail": "d"}]},
    "problems": {"ok": False, "problems": [{"line": 1, "where": "w", "message": "m", "warning": True}]},
}  # fmt: skip


def poisoned(value: Any) -> Any:
    """Put hostile text behind every text, and behind the keys that are names of something."""
    if isinstance(value, dict):
        named = all(isinstance(key, str) and key in {"default", "top", "old", "b", "f.onnx"} for key in value)
        return {
            (key + HOSTILE if named and key != "default" else key): item if key == "verdict" else poisoned(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [poisoned(item) for item in value]
    return value + HOSTILE if isinstance(value, str) else value


def shown(name: str, facts: dict[str, Any]) -> str:
    """Return what a command prints of facts."""
    function = getattr(show, name)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        say(facts, as_json=False, text=function if name != "problems" else lambda known: function("a.yaml", known))
    return printed.getvalue()


def test_every_command_is_tried() -> None:
    """A new way to show facts stands in the examples above."""
    functions = {name for name, one in inspect.getmembers(show, inspect.isfunction) if one.__module__ == show.__name__}
    assert {name for name in functions if not name.startswith(("_", "parse_"))} == set(FACTS)


@pytest.mark.parametrize("name", FACTS)
def test_nothing_that_a_command_shows_commands_a_terminal(name: str) -> None:
    """As many lines as without the hostile text, each printable, and none begins with what was to be forged."""
    harmless, hostile = shown(name, FACTS[name]), shown(name, poisoned(FACTS[name]))
    assert len(hostile.splitlines()) == len(harmless.splitlines())
    assert all(line.isprintable() for line in hostile.splitlines())
    assert "FORGED" in hostile or name == "requested"
    assert not any(line.lstrip().startswith("FORGED") for line in hostile.splitlines())
    hostile.encode()


@pytest.mark.parametrize("name", FACTS)
def test_json_has_everything_and_commands_no_terminal(name: str) -> None:
    """Programs get the very text, in ASCII."""
    printed = io.StringIO()
    facts = poisoned(FACTS[name])
    with contextlib.redirect_stdout(printed):
        say(facts, as_json=True, text=str)
    assert ascii(json.loads(printed.getvalue())) == ascii(facts)  # pytest's workers cannot report what is no UTF-8
    assert all(line.isprintable() for line in printed.getvalue().splitlines())


@given(st.text())
def test_printable_text_is_one_line_and_can_be_encoded(text: str) -> None:
    """Whatever it was; what is printable stays as it is."""
    once = printable(text)
    assert once.isprintable()
    once.encode()
    assert printable(once) == once
    assert printable_values({text: [text, 1, None]}) == {once: [once, 1, None]}


def test_complaints_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Also where an error quotes what it found."""
    complain(HOSTILE)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.isprintable()


def test_a_line_of_the_log_is_one_line_in_every_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a broker says or a file is called, in the sentence, in fields and in a traceback."""
    for form in ("human", "json", "journal"):
        monkeypatch.setattr(logging.getLogger(), "handlers", [])  # the test's own report could not hold it
        stream = io.StringIO()
        setup(LogSection.model_validate({"format": form}), {}, stream)
        logging.getLogger("agent").warning("broker says %s", HOSTILE, extra={"fields": {"file": HOSTILE}})
        (line,) = stream.getvalue().splitlines()
        assert line.isprintable()


def run(*arguments: str | bytes | Path) -> tuple[int, str]:
    """Run a command for real; return its exit code and all that it printed, as a terminal would get it."""
    command = [sys.executable, "-m", "agent.cli", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, env={**os.environ, "COLUMNS": "200"})
    return done.returncode, (done.stdout + done.stderr).decode()


def test_listings_of_a_ledger_with_hostile_names(tmp_path: Path) -> None:
    """`strips list`, `strips show`, `models list` and `status`, over names that the file system and a model allowed."""
    state = tmp_path / "state"
    state.mkdir()
    config = tmp_path / "agent.yaml"
    config.write_text(f"agent: {{state_folder: {state}}}\ncameras: [{{name: top, folder: {tmp_path / 'top'}}}]\n")
    ledger = open_ledger(state / "ledger.db")
    name = HOSTILE.replace("\ud800", "").replace("\0", "")  # what the file system allows
    ledger.strips.begin([SettledFile("top", f"{name}.tif", FileIdentity(10, 1, 1))])
    said = name.replace("\udcff", "")  # what the ledger can hold
    record = ModelRecord("k", "0" * 64, "rejected", said, said, 1, "model_names", said, {"return_detail": said})
    ledger.models.write(Changes("default", {}, (record,)))
    (listed,) = ledger.report.list_strips(state=None, camera=None, limit=1)
    ledger.database.close()
    for arguments in (["strips", "list"], ["strips", "show", listed["strip_id"]], ["models", "list"], ["status"]):
        code, printed = run(*arguments, "--config", config)
        assert code == 0, printed
        assert all(line.isprintable() for line in printed.splitlines()), printed
        assert not any(line.lstrip().startswith("FORGED") for line in printed.splitlines())


def test_models_verify_prints_no_command_of_a_models_author(tmp_path: Path) -> None:
    """Onnxruntime's words quote the name of an operator, which anybody may have chosen."""

    def edit(model: onnx.ModelProto) -> None:
        model.graph.node[-1].op_type = "\x1b[2J\nFORGED good"

    difference_model(tmp_path / "model.onnx", golden=False, edit=edit)
    code, printed = run("models", "verify", tmp_path / "model.onnx")
    assert code == 1, printed
    assert "FORGED" in printed
    assert all(line.isprintable() for line in printed.splitlines()), printed
    assert not any(line.startswith("FORGED") for line in printed.splitlines())


@pytest.mark.parametrize(
    "arguments",
    [
        ["score", b"\x1b[2J\nFORGED\xff.tif", "--model", b"\x1b[2J\nFORGED.onnx"],
        ["strips", "show", b"\x1b[2J\nFORGED\xff"],
        ["models", "list", b"\x1b[2J\nFORGED"],
        ["status", "--config", b"\x1b[2J\nFORGED\xff.yaml"],
    ],
)
def test_arguments_are_quoted_printable(arguments: list[str | bytes]) -> None:
    """A shell fills in names of files that somebody else chose."""
    code, printed = run(*arguments)
    assert code != 0
    assert "FORGED" in printed or arguments[0] == "strips"
    assert all(line.isprintable() for line in printed.splitlines()), printed


def test_a_hostile_configuration_is_shown_printable(tmp_path: Path) -> None:
    """Keys and values of the file, by `check-config`, `doctor` and a command that needs it."""
    config = tmp_path / "agent.yaml"
    config.write_text('cameras:\n  - {name: "\\e[2J\\u202e", folder: "\\e[31m"}\n"\\e[2J\\nFORGED": 1\n')
    for command in ("check-config", "doctor", "status"):
        code, printed = run(command, "--config", config)
        assert code in {1, 78}
        assert "FORGED" in printed
        assert all(line.isprintable() for line in printed.splitlines()), printed
