"""The configuration: the example that people start from."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import yaml

from agent.config import Camera, Config
from agent.config.file import load_config
from agent.config.words import leaf_paths
from tests.config.reading import load
from tests.helpers.repository import ROOT

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLE = ROOT / "config" / "agent.yaml"


def test_the_example_is_a_configuration_with_nothing_but_defaults() -> None:
    """Whoever installs it as it is gets the defaults and one camera."""
    assert load_config(EXAMPLE, {}) == Config.model_validate(
        {"cameras": [{"name": "top", "folder": "/srv/cameras/top"}]}
    )


def test_the_example_shows_every_key_with_its_default(tmp_path: Path) -> None:
    """With all keys uncommented it says the same, and no key of the models is left out."""
    text = re.sub(r"^( *)#(?=[a-z])", r"\1", EXAMPLE.read_text(), flags=re.MULTILINE)
    assert load(tmp_path, text) == load_config(EXAMPLE, {})
    written = yaml.safe_load(text)
    for path in [*leaf_paths(), *(("cameras", 0, key) for key in Camera.model_fields)]:
        value = written
        for key in path:
            assert key in value or isinstance(key, int), path
            value = value[key]


def test_the_pages_that_are_made_from_the_source_are_up_to_date() -> None:
    """docs/configuration.md says what the models say."""
    script = ROOT / "tools" / "make_docs.py"
    done = subprocess.run([sys.executable, str(script), "--check"], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
