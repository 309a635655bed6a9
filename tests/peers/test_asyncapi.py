"""docs/asyncapi.yaml, read by the parser of those who made AsyncAPI."""

from __future__ import annotations

import pytest

from agent.messages import schemas
from tests.helpers.repository import ROOT
from tests.peers.installed import facts_of, needs_peer
from tools.docs_topics import BASE, TOPICS

pytestmark = [pytest.mark.peers, needs_peer("npm")]


def test_the_parser_of_asyncapi_is_content_with_the_description() -> None:
    """No error, no warning; each topic is there with its message, and each message with its keys."""
    read = facts_of("check_asyncapi.js", str(ROOT / "docs" / "asyncapi.yaml"))
    assert read["version"] == "3.0.0"
    assert [said for said in read["diagnostics"] if not said.startswith(("info ", "hint "))] == []
    said = schemas()
    sent = {(operation["address"], operation["message"]): operation["keys"] for operation in read["operations"]}
    for topic, schema, *_ in TOPICS:
        assert sent[f"{BASE}/{topic}", schema] == list(said[schema]["properties"])
