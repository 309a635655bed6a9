"""Commands on a ledger without a service: which strips they mean, and what they refuse."""

from __future__ import annotations

import json
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from agent.cli import __main__ as cli
from agent.cli import show
from agent.config import Config
from agent.control import commands, on_strips
from agent.control.commands import handle
from agent.control.context import Context
from agent.ledger import NewResult, open_ledger, report
from agent.ledger.strips import LIVE
from agent.records import FileIdentity, SettledFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GOOD, BAD = "600d" * 16, "bad0" * 16


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    """Make a context with a new ledger."""
    ledger = open_ledger(tmp_path / "ledger.db")
    config = Config.model_validate(
        {"agent": {"state_folder": str(tmp_path)}, "cameras": [{"name": "top", "folder": str(tmp_path / "camera")}]}
    )
    yield Context(config, ledger, {})
    ledger.database.close()


def judge(context: Context, number: int, model: str, *, first: int = 0, dispose: bool = False) -> list[str]:
    """Bring so many strips to a result of that model; return their ids."""
    ids = []
    files = [SettledFile("top", f"{model}{n}.tif", FileIdentity(10, n, 1)) for n in range(first, first + number)]
    context.ledger.strips.begin(files)
    result = NewResult("ok", "", 0.1, model, 0, "d", "event/strip/top", dispose=dispose)
    while (strip := context.ledger.strips.next_waiting("top", LIVE, ())) is not None:
        context.ledger.strips.commit(strip, result, lambda seq, _: json.dumps({"seq": seq}).encode(), 10**6)
        ids.append(strip.strip_id)
    return ids


def ask(context: Context, command: str, **arguments: Any) -> dict[str, Any]:
    """Ask, and expect an answer."""
    answer = handle(context, {"command": command, **arguments}, "tester")
    assert answer.pop("ok"), answer
    return answer


def refusal(context: Context, command: str, **arguments: Any) -> str:
    """Ask, and expect to be refused."""
    answer = handle(context, {"command": command, **arguments}, "tester")
    assert not answer["ok"]
    return str(answer["error"])


def test_strips_of_a_model_are_judged_again_however_many_they_are(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of that model's, in batches, and none of another's."""
    monkeypatch.setattr(on_strips, "RETRY_BATCH", 5)
    bad = judge(context, 12, BAD)
    judge(context, 5, GOOD)
    answer = ask(context, "retry", strip_ids=[], model=BAD[:8].upper())
    assert answer == {"retried": bad, "refused": {}, "next_row": None}
    assert ask(context, "status")["strips"]["waiting"] == len(bad)
    again = ask(context, "retry", strip_ids=[], model=BAD[:8])
    assert again == {"retried": [], "refused": {}, "next_row": None}


@pytest.mark.parametrize("as_json", [False, True])
def test_a_long_history_is_judged_again_in_requests_that_are_short(
    context: Context, monkeypatch: pytest.MonkeyPatch, *, as_json: bool
) -> None:
    """No request takes longer than a heartbeat may; the command line asks until all are done, and shows one list."""
    monkeypatch.setattr(on_strips, "RETRY_BATCH", 5)
    monkeypatch.setattr(on_strips, "RETRY_BATCHES", 2)
    bad = judge(context, 27, BAD)
    parts: list[int] = []

    def facts_of(_: Path, request: dict[str, Any]) -> dict[str, Any]:
        answer = handle(context, request, "tester")
        assert answer.pop("ok"), answer
        parts.append(len(answer["retried"]))
        return answer

    monkeypatch.setattr(cli, "facts_of", facts_of)
    arguments = ["strips", "retry", "--model", BAD[:8], *(["--json"] if as_json else [])]
    result = CliRunner().invoke(cli.cli, arguments)
    assert result.exit_code == 0, result.output
    assert parts == [10, 10, 7]
    if as_json:
        assert json.loads(result.output) == {"retried": bad, "refused": {}}
    else:
        assert result.output.splitlines() == [f"{strip_id}  is judged again" for strip_id in bad]


@pytest.mark.parametrize("model", ["", "bad0", "%", "bad0bad_", "bad0bad0" * 9, 7])
def test_what_names_no_model_retries_and_lists_nothing(context: Context, model: Any) -> None:
    """A variable of a script that is empty must not judge a year of strips again."""
    judge(context, 2, BAD)
    assert "8 to 64 hexadecimal digits" in refusal(context, "retry", strip_ids=[], model=model)
    assert "8 to 64 hexadecimal digits" in refusal(context, "strips_list", model=model)
    assert ask(context, "status")["strips"]["waiting"] == 0


@pytest.mark.parametrize("strip_id", ["", "%", "_", "g", "0" * 17, None])
def test_what_names_no_strip_is_refused(context: Context, strip_id: Any) -> None:
    """No pattern, nothing empty, nothing too long."""
    judge(context, 1, BAD)
    assert "hexadecimal digits" in refusal(context, "strips_show", strip_id=strip_id)
    assert "hexadecimal digits" in refusal(context, "retry", strip_ids=[strip_id])


def test_strips_are_named_by_the_beginning_of_their_id(context: Context) -> None:
    """As much of it as is needed; what several strips share names none."""
    ids = judge(context, 20, BAD)
    shared = next(one[0] for one in ids if sum(other[0] == one[0] for other in ids) > 1)
    assert ask(context, "strips_show", strip_id=ids[3][:12].upper())["strip"]["strip_id"] == ids[3]
    assert "more than one" in refusal(context, "strips_show", strip_id=shared)
    answer = ask(context, "retry", strip_ids=[ids[0][:12], ids[0], shared, "0123456789abcdef"])
    assert answer["retried"] == [ids[0]]
    assert answer["refused"] == {
        shared: "more than one strip's id begins so",
        "0123456789abcdef": "no such strip",
    }


def test_a_strip_whose_file_is_about_to_go_is_not_judged_again(context: Context) -> None:
    """From the acknowledgement on the file may be moved at any moment: what would be read is not sure to be there."""
    (strip_id,) = judge(context, 1, BAD, dispose=True)
    context.ledger.outbox.acknowledge([1])
    (row,) = (row for row, _ in context.ledger.report.find_strips(strip_id))
    assert "when_done" in context.ledger.strips.retry([row])[row]
    context.ledger.strips.disposed(row, "done")
    assert "when_done" in ask(context, "retry", strip_ids=[strip_id])["refused"][strip_id]
    context.ledger.strips.disposed(row, "replaced")  # it was another file, and stays
    assert ask(context, "retry", strip_ids=[strip_id])["retried"] == [strip_id]


def test_a_listing_says_when_it_was_cut(context: Context) -> None:
    """What is not shown is not hidden."""
    judge(context, 3, BAD)
    assert ask(context, "strips_list", limit=3)["cut"] is False
    cut = ask(context, "strips_list", limit=2)
    assert (len(cut["strips"]), cut["cut"]) == (2, True)
    assert show.strips(cut).splitlines()[-1] == "only the newest 2; --limit shows more"


def test_long_reads_do_not_hold_up_the_line(context: Context) -> None:
    """Audit, list and show read while another thread holds the ledger's one connection."""
    (strip_id,) = judge(context, 1, BAD)
    with context.ledger.database.transaction() as db:
        db.execute("UPDATE strips SET attempts = 7")
        found = context.ledger.report.list_strips(state=None, camera=None, limit=1)
        shown = context.ledger.report.show_strip(strip_id)
        assert context.ledger.report.judged_by(BAD, 0, 10) == [(1, strip_id)]
        assert context.ledger.report.audit().balanced
    assert shown is not None
    assert (found[0]["attempts"], shown["attempts"]) == (0, 0), "read on the connection that writes"


def test_the_audit_names_every_strip_that_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many they are: in parts over the socket, all of them in what the command line prints."""
    monkeypatch.setattr(report, "NAMED_AT_ONCE", 5)
    state = tmp_path / "state"
    state.mkdir()
    config = tmp_path / "agent.yaml"
    config.write_text(f"agent: {{state_folder: {state}}}\ncameras: [{{name: top, folder: {tmp_path / 'top'}}}]\n")
    ledger = open_ledger(state / "ledger.db")
    ledger.strips.begin([SettledFile("top", f"{n:02}.tif", FileIdentity(10, n, n)) for n in range(12)])
    audit = ledger.report.audit()
    assert (len(audit.unpublished), audit.unpublished_not_named) == (5, 7)
    ledger.database.close()
    done = CliRunner().invoke(cli.cli, ["audit", "--json", "--config", str(config)])
    facts = json.loads(done.stdout)
    assert [item["file"] for item in facts["unpublished"]] == [f"{n:02}.tif" for n in range(12)]
    assert facts["unpublished_not_named"] == 0


HOSTILE_VALUES: list[Any] = [
    None,
    True,
    7,
    -1,
    1.5,
    1 << 70,
    "",
    "\x1b[2J",
    "\ud800",
    "x" * 1000,
    [],
    [None],
    [[]],
    {},
    {"a": 1},
]


def recorded(context: Context) -> list[dict[str, Any]]:
    """Return the events that tell who had what changed, in order."""
    waiting = context.ledger.outbox.next_outbox_messages(0, 1000)
    return [json.loads(message.payload) for message in waiting if message.topic == "event/command"]


def test_what_is_no_command_gets_a_clean_answer(context: Context) -> None:
    """Also a list, which cannot even be looked up; nothing is recorded as done."""
    for command in HOSTILE_VALUES:
        answer = handle(context, {"command": command}, "tester")
        assert answer["error"].startswith("there is no command ")
        assert len(answer["error"]) < 500
    assert recorded(context) == []


@pytest.mark.parametrize("command", commands.COMMANDS)
def test_no_argument_of_any_command_makes_a_trace(context: Context, command: str) -> None:
    """Each argument, and one that does not exist, with values of every type: an answer, or a sentence naming it."""
    known = commands.COMMANDS[command].arguments.model_fields
    needed = {"strip_id": "00", "strip_ids": [], "after_row": 0, "digest": "00", "camera": "top"}
    for name, value in product([*known, "surplus", "\x1b", "\ud800"], HOSTILE_VALUES):
        arguments = {key: needed[key] for key in known if key in needed} | {name: value}
        answer = handle(context, {"command": command, **arguments}, "tester")
        json.dumps(answer)
        assert answer["ok"] or len(answer["error"]) < 500
        assert name in known or not answer["ok"]
    assert "surplus: there is no such argument" in refusal(context, command, surplus=1)


def test_a_missing_argument_is_named(context: Context) -> None:
    """And every other one that is wrong in the same answer."""
    said = refusal(context, "activate", slot=3)
    assert said == "activate: slot: input should be a valid string; digest: field required"


def test_only_what_changes_something_is_recorded(context: Context) -> None:
    """Who looks later sees who asked for what, once it is known to be a command, and nothing of what only looks."""
    handle(context, {"command": "retry", "strip_ids": "everything"}, "user root")
    handle(context, {"command": "status"}, "user root")
    assert recorded(context) == []
    handle(context, {"command": "retry", "strip_ids": ["ABC"]}, "user root")
    [told] = recorded(context)
    assert {key: told[key] for key in ("command", "by", "way", "id", "ok", "error", "detail", "count")} == {
        "command": "retry", "by": "user root", "way": "command_line", "id": "",
        "ok": True, "error": "", "detail": "", "count": 0,
    }  # fmt: skip
    assert json.loads(told["arguments"]) == {"strip_ids": ["abc"]}
    handle(context, {"command": "rollback"}, "user root")
    assert [(event["command"], event["ok"], event["error"]) for event in recorded(context)[1:]] == [
        ("rollback", False, "refused")
    ]


def test_a_strip_is_shown_with_the_sentence_of_its_reason(context: Context) -> None:
    """What was found stands beside the code; whatever its bytes, and no more of it than people read."""
    context.ledger.strips.begin([SettledFile("top", "x.tif", FileIdentity(10, 1, 1))])
    strip = context.ledger.strips.next_waiting("top", LIVE, ())
    assert strip is not None
    said = "begins with \udcff\ud800\x1b" + "x" * 100_000
    result = NewResult("invalid", "not_a_tiff", -1.0, BAD, 0, "d", "event/strip/top", dispose=False, detail=said)
    context.ledger.strips.commit(strip, result, lambda seq, _: json.dumps({"seq": seq, "revision": 1}).encode(), 9)
    facts = ask(context, "strips_show", strip_id=strip.strip_id)
    assert facts["strip"]["results"][0]["detail"].startswith("begins with \\xff\\ud800\\x1bxxx")
    assert len(facts["strip"]["results"][0]["detail"]) < 3000
    assert "detail             begins with" in show.strip(facts)


def test_results_are_sent_again_by_their_numbers(context: Context) -> None:
    """What cannot be is named; a request that nobody can have meant is refused."""
    judge(context, 5, GOOD)
    context.ledger.outbox.acknowledge([1, 2, 3])
    answer = ask(context, "resend", from_seq=2, to_seq=9)
    assert answer == {
        "stream": context.ledger.database.stream, "from_seq": 2, "to_seq": 9, "queued": 2, "waiting": 2, "purged": [],
        "last_seq": 5,
    }  # fmt: skip
    assert "numbers above 5 have not been given yet" in show.resent(answer)
    assert "2 above" not in show.resent(answer)
    assert ask(context, "status")["outbox"]["replays"] == 2
    assert "3 is above 2" in refusal(context, "resend", from_seq=3, to_seq=2)
    assert "at most 10000 may wait" in refusal(context, "resend", from_seq=1, to_seq=10_001)
    assert "at most 10000 may wait" in refusal(context, "resend", from_seq=1, to_seq=(1 << 63) - 1)
    assert ask(context, "resend", from_seq=1, to_seq=9998, stream="abc")["purged"] == [(1, 9998)]
    for wrong in ({"from_seq": 0}, {"from_seq": True}, {"from_seq": "1"}, {"stream": "../x"}, {"more": 1}):
        assert refusal(context, "resend", **{"from_seq": 1, "to_seq": 2, **wrong})
