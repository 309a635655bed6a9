"""What stands around the page: whose name a request is for, how many, how large, who may post, who is logged in."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from agent.web.sessions import MAX_SESSIONS, SESSION_SECONDS, Sessions, hash_password, is_password
from agent.web.walls import MAX_BODY_BYTES, Rates, is_ours
from tests.web.served import ServedBox, csrf

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from starlette.testclient import TestClient

FORM = "application/x-www-form-urlencoded"


@pytest.fixture
def box(tmp_path: Path) -> Iterator[ServedBox]:
    """Serve a box whose page asks for a password in the tests that give one."""
    with ServedBox(tmp_path) as served:
        yield served


def log_in(browser: TestClient, password: str) -> int:
    """Fill in the form; return the status."""
    token = csrf(browser.get("/login").text)
    return browser.post("/login", data={"csrf": token, "password": password, "next": "/line"}).status_code


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("localhost:8080", True), ("127.0.0.1", True), ("192.0.2.7:8080", True), ("[::1]:8080", True),
        ("[2001:db8::1]", True), ("box7:8080", True), ("BOX7.", True), ("evil.example", False),
        ("127.0.0.1.evil.example", False), ("localhost.evil.example:80", False), ("", False), ("box7:80:80", False),
    ],
)  # fmt: skip
def test_a_name_that_was_rebound_to_the_box_is_refused(host: str, ours: bool) -> None:
    """A page of elsewhere whose name suddenly leads to this machine reads nothing: only addresses and own names do."""
    assert is_ours(host, frozenset({"localhost", "box7"})) is ours


def test_a_request_for_another_name_gets_nothing(box: ServedBox) -> None:
    """Nothing of the application is reached, whatever the path."""
    with box.browser(host="evil.example") as browser:
        assert [browser.get(path).status_code for path in ("/line", "/static/page.css", "/login")] == [421] * 3


def test_every_answer_forbids_what_browsers_would_allow(box: ServedBox) -> None:
    """No script or style but the page's own, no frame around it, no guessing of types; refusals too."""
    with box.browser() as browser:
        for path in ("/line", "/static/live.js", "/nothing", "/strips/%2e%2e/1/target.png"):
            headers = browser.get(path).headers
            assert "default-src 'none'" in headers["content-security-policy"]
            assert "unsafe-inline" not in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"


def test_pages_have_no_inline_script_or_style(box: ServedBox) -> None:
    """The policy would block them; a page that needs one is broken."""
    box.judge("a.tif", 0.9)
    with box.browser() as browser:
        page = browser.get("/line").text
    assert re.findall(r"<script(?![^>]* src=)|<style| style=| on[a-z]+=|javascript:", page) == []


@pytest.mark.parametrize("length", [str(MAX_BODY_BYTES + 1), "100000000", "-1", "many"])
def test_a_large_request_is_refused_unread(box: ServedBox, length: str) -> None:
    """By what it says of itself, before a byte of it is taken."""
    with box.browser() as browser:
        done = browser.post("/login", content=b"", headers={"content-length": length, "content-type": FORM})
    assert done.status_code == 413
    assert done.headers["connection"] == "close"


def test_a_large_request_that_hides_its_size_is_cut_off(box: ServedBox) -> None:
    """In chunks the size is not told; it ends at the limit all the same."""
    with box.browser("secret") as browser:
        chunks = (b"x" * 8192 for _ in range(1000))
        assert browser.post("/login", content=chunks, headers={"content-type": FORM}).status_code == 413


def test_who_asks_too_often_has_to_wait() -> None:
    """A bucket for each client that fills up again; no number of clients takes more memory."""
    now = 0.0
    rates = Rates(lambda: now, per_second=1.0, burst=3.0)
    assert [rates.take("a") for _ in range(4)] == [True, True, True, False]
    assert rates.take("b")
    now = 1.0
    assert [rates.take("a"), rates.take("a")] == [True, False]
    for number in range(5000):
        rates.take(str(number))
    assert len(rates._left) <= 1024


@pytest.mark.parametrize("stored", ["secret", hash_password("secret")])
def test_a_password_is_plain_or_hashed(stored: str) -> None:
    """Either line in the file lets the one password in, and no other; a broken line lets nobody in."""
    assert is_password("secret", stored)
    assert not is_password("secret ", stored)
    assert not is_password("", stored)
    assert not is_password(hash_password("secret"), stored)
    assert not is_password("secret", "scrypt:zz:zz")


def test_without_the_password_there_is_only_the_form(box: ServedBox) -> None:
    """Pages lead to it, and everything else is refused, events and pictures too."""
    with box.browser("secret") as browser:
        assert browser.get("/line").headers["location"] == "/login?next=%2Fline"
        for path in ("/events", "/strips/0123456789abcdef/1/target.png", "/line"):
            assert browser.get(path, headers={"accept": "*/*"}).status_code == 401
        assert log_in(browser, "wrong") == 403
        assert browser.get("/line").status_code == 303
        before = browser.cookies.get("strip_agent_session")
        assert log_in(browser, "secret") == 303
        assert browser.cookies.get("strip_agent_session") != before, "a cookie that somebody else may know"
        page = browser.get("/line")
        assert page.status_code == 200
        assert browser.post("/logout", data={"csrf": csrf(page.text)}).status_code == 303
        assert browser.get("/line").status_code == 303


def test_the_cookie_is_of_no_use_elsewhere(box: ServedBox) -> None:
    """No script reads it, and no other site's request carries it."""
    with box.browser() as browser:
        cookie = browser.get("/line").headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


@pytest.mark.parametrize("following", ["//evil.example", "https://evil.example", "/\\evil.example", "evil"])
def test_logging_in_leads_nowhere_else(box: ServedBox, following: str) -> None:
    """A link to the form cannot send whoever logs in to another site."""
    with box.browser("secret") as browser:
        token = csrf(browser.get("/login", params={"next": following}).text)
        done = browser.post("/login", data={"csrf": token, "password": "secret", "next": following})
    assert done.headers["location"] == "/"


def test_a_forged_post_is_refused(box: ServedBox) -> None:
    """Without the session's token, with another session's, from another site, or as another kind of form."""
    with box.browser("secret") as browser, box.browser("secret") as other:
        token, foreign = csrf(browser.get("/login").text), csrf(other.get("/login").text)
        good = {"csrf": token, "password": "secret"}
        assert browser.post("/login", data={"password": "secret"}).status_code == 403
        assert browser.post("/login", data={**good, "csrf": foreign}).status_code == 403
        assert browser.post("/login", data=good, headers={"sec-fetch-site": "cross-site"}).status_code == 403
        assert browser.post("/login", json=good).status_code == 415
        assert browser.post("/login", data=good).status_code == 303


def test_sessions_end_and_are_bounded() -> None:
    """By time, and by number: strangers make room before those who are logged in."""
    now = 0.0
    sessions = Sessions(lambda: now)
    known, _ = sessions.begin(logged_in=True)
    for _ in range(MAX_SESSIONS + 10):
        sessions.begin(logged_in=False)
    assert len(sessions._sessions) == MAX_SESSIONS
    assert sessions.find(known) is not None
    now = SESSION_SECONDS + 1
    assert sessions.find(known) is None


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE"])
def test_only_three_methods_exist(box: ServedBox, method: str) -> None:
    """Everything else is refused at the wall."""
    with box.browser() as browser:
        assert browser.request(method, "/line").status_code == 405


@pytest.mark.parametrize(
    "path", ["/static/", "/static/../site.py", "/static/%2e%2e/site.py", "/static/..%2fsite.py", "/../../etc/passwd"]
)
def test_no_path_leads_out_of_the_static_folder(box: ServedBox, path: str) -> None:
    """Neither a list of what is there nor a file beside it."""
    with box.browser() as browser:
        assert browser.get(path).status_code in {404, 405}
