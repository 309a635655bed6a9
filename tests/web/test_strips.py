"""The pages *Strips* and *Strip*: filters, pages, neighbours, revisions, judging again; hostile names and ids."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from agent.control.commands import handle
from tests.web import served
from tests.web.served import ServedBox, csrf

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from starlette.testclient import TestClient

HOSTILE = "\"><script>alert(1)</script>&{{7*7}}'.tif"


@pytest.fixture
def box(tmp_path: Path) -> Iterator[ServedBox]:
    """Serve a box whose camera's names hold a part."""
    cameras = [
        {"name": "top", "folder": str(tmp_path / "top"), "part_id_pattern": "_(P[0-9]+)"},
        {"name": "side", "folder": str(tmp_path / "side")},
    ]
    with ServedBox(tmp_path, cameras=cameras, mqtt={"commands": ["retry"]}) as box_of_parts:
        yield box_of_parts


def listed(browser: TestClient, **query: str | int) -> list[str]:
    """Return the files that the list names, in its order."""
    page = browser.get("/strips", params=query).text
    return re.findall(r'row-file">[a-z]+ · ([^ <]+)', page)


def test_strips_are_found_by_camera_verdict_reason_and_part(box: ServedBox) -> None:
    """Each filter alone and all together; the newest first."""
    for number in range(6):
        box.judge(f"{number}_P{number // 2}.tif", 0.9 if number % 3 == 0 else 0.1)
    box.judge("x.tif", None, camera="side", reason="damaged_tiff")
    box.judge("y.tif", None, camera="side", reason="empty_file")
    with box.browser() as browser:
        assert listed(browser)[:2] == ["y.tif", "x.tif"]
        assert listed(browser, camera="top") == [f"{number}_P{number // 2}.tif" for number in (5, 4, 3, 2, 1, 0)]
        assert listed(browser, verdict="anomalous") == ["3_P1.tif", "0_P0.tif"]
        assert listed(browser, reason="empty_file") == ["y.tif"]
        assert listed(browser, part="P1") == ["3_P1.tif", "2_P1.tif"]
        assert listed(browser, part="P1", verdict="anomalous", camera="top") == ["3_P1.tif"]
        assert listed(browser, part="P1", camera="side") == []
        assert listed(browser, until="2001-01-01T00:00") == []
        assert len(listed(browser, until="2100-01-01T00:00")) == 8


def test_pages_follow_each_other_without_gap_or_repetition(box: ServedBox) -> None:
    """Whatever comes meanwhile, the next page begins where this one ended."""
    for number in range(130):
        box.judge(f"{number}.tif")
    seen: list[str] = []
    with box.browser() as browser:
        address = "/strips?camera=top"
        while address:
            page = browser.get(address).text
            seen += re.findall(r'row-file">top · ([^ <]+)', page)
            box.judge(f"new{len(seen)}.tif")
            found = re.search(r'href="([^"]+)" rel="next"', page)
            address = found[1].replace("&amp;", "&") if found else ""
    assert seen == [f"{number}.tif" for number in reversed(range(130))]


@pytest.mark.parametrize(
    "query", ["before=x", "before=99999999999999999999", "verdict=bad", "reason=%3Cscript%3E", "until=yesterday",
              "until=9999-99-99", "camera=" + "x" * 300, "part=%00", "limit=99999"]
)  # fmt: skip
def test_no_address_breaks_the_list(box: ServedBox, query: str) -> None:
    """What cannot be is left out, or fits nothing."""
    box.judge("a.tif")
    with box.browser() as browser:
        assert browser.get(f"/strips?{query}").status_code == 200


def test_neighbours_keep_to_the_filter(box: ServedBox) -> None:
    """Next and previous lead through what was filtered, not through everything."""
    ids = [box.judge(f"{number}.tif", score) for number, score in enumerate((0.9, 0.1, 0.9, 0.1, 0.9))]
    with box.browser() as browser:
        page = browser.get(f"/strips/{ids[2]}?verdict=anomalous").text
        assert re.findall(r'href="/strips/([0-9a-f]+)[^"]*" rel="prev"', page) == [ids[4]]
        assert re.findall(r'href="/strips/([0-9a-f]+)[^"]*" rel="next"', page) == [ids[0]]
        page = browser.get(f"/strips/{ids[2]}").text
        assert re.findall(r'href="/strips/([0-9a-f]+)[^"]*" rel="(?:prev|next)"', page) == [ids[3], ids[1]]


def test_a_strip_shows_every_fact_of_its_message(box: ServedBox) -> None:
    """Each key that was published stands on the page."""
    strip_id = box.judge("7_P9.tif", 0.9)
    message = box.context.ledger.pages.message(strip_id)
    assert message is not None
    with box.browser() as browser:
        page = browser.get(f"/strips/{strip_id}").text
    for key in set(message) - {"schema"}:
        assert f"<code>{key}</code>" in page, key
    assert "P9" in page


def test_judging_again_makes_a_revision(box: ServedBox) -> None:
    """The button gives the strip back to the queue; a second time the agent says no, and the page says so."""
    strip_id = box.judge("a.tif", 0.9)
    with box.browser() as browser:
        token = csrf(browser.get(f"/strips/{strip_id}").text)
        assert browser.post(f"/strips/{strip_id}/retry", data={"csrf": "x"}).status_code == 403
        done = browser.post(f"/strips/{strip_id}/retry", data={"csrf": token})
        assert "waits to be judged again" in browser.get(done.headers["location"]).text
        done = browser.post(f"/strips/{strip_id}/retry", data={"csrf": token})
        assert "does not judge it again" in browser.get(done.headers["location"]).text
    shown = box.ledger.report.show_strip(strip_id)
    assert shown is not None
    assert (shown["state"], shown["revision"]) == ("waiting", 2)


def test_judging_again_is_only_there_where_commands_allow_it(tmp_path: Path) -> None:
    """Without `retry` in `mqtt.commands` there is no button, and the page's user is refused by the agent."""
    with ServedBox(tmp_path) as box, box.browser() as browser:
        strip_id = box.judge("a.tif", 0.9)
        page = browser.get(f"/strips/{strip_id}").text
        assert "/retry" not in page
        box.asked_by = "strip-agent-web"
        token = next(iter(browser.app.state.site.sessions._sessions.values())).csrf  # type: ignore[attr-defined]
        done = browser.post(f"/strips/{strip_id}/retry", data={"csrf": token})
        assert done.headers["location"].endswith("said=refused")
        shown = box.ledger.report.show_strip(strip_id)
        assert shown is not None
        assert shown["state"] == "judged"


@pytest.mark.parametrize(
    "strip_id", ["0" * 15, "0" * 17, "g" * 16, "ABCDEF0123456789", "%2e%2e%2f", "0123456789abcde%00", "*", "' OR 1=1"]
)
def test_what_is_no_id_is_not_found(box: ServedBox, strip_id: str) -> None:
    """Beginnings of ids, paths and the like lead nowhere, on no address."""
    box.judge("a.tif")
    with box.browser() as browser:
        for path in ("", "/1/target.png", "/1/value?row=1&col=1"):
            assert browser.get(f"/strips/{strip_id}{path}").status_code == 404


def test_a_strip_that_was_never_seen_is_not_found(box: ServedBox) -> None:
    """The agent does not know it, and the page says that."""
    with box.browser() as browser:
        answer = browser.get(f"/strips/{'0' * 16}")
    assert answer.status_code == 404
    assert "The agent cannot show that" in answer.text


def test_hostile_names_are_text_on_every_page(box: ServedBox) -> None:
    """A file's name is never markup; nor is what it is filtered by."""
    strip_id = box.judge(HOSTILE, 0.9)
    with box.browser() as browser:
        for path in ("/strips", f"/strips/{strip_id}", f"/strips?part={HOSTILE}&camera={HOSTILE}", "/line"):
            page = browser.get(path).text
            assert "<script>alert" not in page
            assert "49.tif" not in page


def test_bytes_that_are_no_text_are_shown_and_their_file_is_found(box: ServedBox) -> None:
    """A name may be any bytes: it is shown with escapes, and the picture's request carries the bytes."""
    strip_id = box.judge("bad\udcff.tif", 0.9)
    with box.browser() as browser:
        assert "bad\\xff.tif" in browser.get(f"/strips/{strip_id}").text
    assert box.context.ledger.pages.file_of(strip_id)["path"] == "bad\udcff.tif"  # type: ignore[index]


def test_a_service_of_an_earlier_release_is_shown_without_what_it_does_not_know(
    box: ServedBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the minutes of an upgrade the page may be newer than the service: no page fails for that."""

    def of_an_earlier_release(*asked: Any) -> dict[str, Any]:
        answer = handle(*asked)
        answer.pop("reviews", None)
        answer.get("strip", {}).pop("reviews", None)
        return answer

    monkeypatch.setattr(served, "handle", of_an_earlier_release)
    strip_id = box.judge("a.tif", 0.9)
    with box.browser() as browser:
        for path in (f"/strips/{strip_id}", "/models"):
            assert browser.get(path).status_code == 200
