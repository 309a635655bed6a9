"""Commands on a ledger without a service: which strips they mean, and what they refuse."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from agent.cli import __main__ as cli
from agent.cli import show
from agent.config import Config
from agent.control import commands
from agent.control.commands import Context, handle
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
    answer = handle(context, {"command": command, **arguments})
    assert answer.pop("ok"), answer
    return answer


def refusal(context: Context, command: str, **arguments: Any) -> str:
    """Ask, and expect to be refused."""
    answer = handle(context, {"command": command, **arguments})
    assert not answer["ok"]
    return str(answer["error"])


def test_strips_of_a_model_are_judged_again_however_many_they_are(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of that model's, in batches, and none of another's."""
    monkeypatch.setattr(commands, "RETRY_BATCH", 5)
    bad = judge(context, 12, BAD)
    judge(context, 5, GOOD)
    answer = ask(context, "strips_retry", strip_ids=[], model=BAD[:8].upper())
    assert answer == {"retried": bad, "refused": {}}
    assert ask(context, "status")["strips"]["waiting"] == len(bad)
    assert ask(context, "strips_retry", strip_ids=[], model=BAD[:8]) == {"retried": [], "refused": {}}


@pytest.mark.parametrize("model", ["", "bad0", "%", "bad0bad_", "bad0bad0" * 9, 7])
def test_what_names_no_model_retries_and_lists_nothing(context: Context, model: Any) -> None:
    """A variable of a script that is empty must not judge a year of strips again."""
    judge(context, 2, BAD)
    assert "8 to 64 hexadecimal digits" in refusal(context, "strips_retry", strip_ids=[], model=model)
    assert "8 to 64 hexadecimal digits" in refusal(context, "strips_list", model=model)
    assert ask(context, "status")["strips"]["waiting"] == 0


@pytest.mark.parametrize("strip_id", ["", "%", "_", "g", "0" * 17, None])
def test_what_names_no_strip_is_refused(context: Context, strip_id: Any) -> None:
    """No pattern, nothing empty, nothing too long."""
    judge(context, 1, BAD)
    assert "hexadecimal digits" in refusal(context, "strips_show", strip_id=strip_id)
    assert "hexadecimal digits" in refusal(context, "strips_retry", strip_ids=[strip_id])


def test_strips_are_named_by_the_beginning_of_their_id(context: Context) -> None:
    """As much of it as is needed; what several strips share names none."""
    ids = judge(context, 20, BAD)
    shared = next(one[0] for one in ids if sum(other[0] == one[0] for other in ids) > 1)
    assert ask(context, "strips_show", strip_id=ids[3][:12].upper())["strip"]["strip_id"] == ids[3]
    assert "more than one" in refusal(context, "strips_show", strip_id=shared)
    answer = ask(context, "strips_retry", strip_ids=[ids[0][:12], ids[0], shared, "0123456789abcdef"])
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
    assert "when_done" in ask(context, "strips_retry", strip_ids=[strip_id])["refused"][strip_id]
    context.ledger.strips.disposed(row, "replaced")  # it was another file, and stays
    assert ask(context, "strips_retry", strip_ids=[strip_id])["retried"] == [strip_id]


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
