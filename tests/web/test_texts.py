"""The page's words: two languages, the same keys, and a choice that follows the browser."""

from __future__ import annotations

import re

import pytest

from agent.messages.alarms import ALARMS
from agent.web.site import TEMPLATES
from agent.web.texts import LANGUAGES, Words, catalogue, choose
from tests.helpers.repository import ROOT

FIELD = re.compile(r"\{[a-z_]*\}")


def test_every_text_is_there_in_every_language() -> None:
    """Nobody sees a key, or half a page in another language; what is filled in is the same."""
    for key, texts in catalogue().items():
        in_their_table = key.startswith(("alarm.", "advice.", "finding."))  # their English is in agent/
        wanted = {"zh-TW"} if in_their_table else set(LANGUAGES)
        assert set(texts) == wanted, key
        assert all(text.strip() for text in texts.values()), key
        assert len({tuple(sorted(FIELD.findall(text))) for text in texts.values()}) == 1, key


def test_every_alarm_and_what_to_do_is_there_in_chinese() -> None:
    """Who reads Chinese is not left with an English sentence for an alarm of this release; the docs advise the same."""
    documented = {}
    for line in (ROOT / "docs/zh-TW/alarms.md").read_text(encoding="utf-8").splitlines():
        if row := re.fullmatch(r"\| `([a-z_]+)` \| \w+ \| .* \| (.*) \|", line):
            documented[row[1]] = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", row[2]).replace("**", "") + "。"
    assert set(documented) == set(ALARMS)
    words = Words("zh-TW")
    for code in ALARMS:
        assert words(f"alarm.{code}")
        assert words(f"advice.{code}") == documented[code]


def test_every_text_that_a_template_names_exists() -> None:
    """A page does not fail in the language that nobody tried."""
    for path in TEMPLATES.glob("*.html"):
        for key in re.findall(r"""words\(["']([a-z_.]+)["'][),]""", path.read_text(encoding="utf-8")):
            assert key in catalogue(), f"{path.name}: {key}"


@pytest.mark.parametrize(
    ("setting", "header", "language"),
    [
        ("auto", "zh-TW,zh;q=0.9,en;q=0.8", "zh-TW"),
        ("auto", "en-GB,zh-TW;q=0.9", "en"),
        ("auto", "de-DE,de;q=0.9,zh-TW;q=0.5,en;q=0.7", "en"),
        ("auto", "fr", "en"),
        ("auto", "", "en"),
        ("auto", "zh-TW;q=what", "en"),
        ("en", "zh-TW", "en"),
        ("zh-TW", "en", "zh-TW"),
    ],
)
def test_the_language_is_the_one_that_was_asked_for(setting: str, header: str, language: str) -> None:
    """The configuration decides, else the browser; English where neither knows."""
    assert choose(setting, header) == language


def test_a_code_that_has_no_words_yet_is_shown_as_it_is() -> None:
    """A newer service may send codes that this page has never heard of."""
    assert Words("en").known("reason.of_a_later_version", "of_a_later_version") == "of_a_later_version"
