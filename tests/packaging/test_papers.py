"""What a bundle says of itself, and what the pages say of the installer."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from tests.helpers.bundles import small_bundle
from tests.helpers.repository import ROOT
from tools.packaging import wheels
from tools.packaging.installer.refusal import Code
from tools.packaging.papers import Component, bill_of_materials, licence_list

if TYPE_CHECKING:
    from pathlib import Path

SOME = [Component("a-1.whl", "A_b", "1", "MIT", "0" * 64), Component("c-2.whl", "c", "2", "BSD-3-Clause", "1" * 64)]


def test_every_refusal_is_explained() -> None:
    """Each code of the installer has its row in docs/install.md, and none stands there that does not exist."""
    page = (ROOT / "docs/install.md").read_text().partition("## When the installer refuses")[2]
    assert sorted(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == sorted(Code)


def test_the_bill_of_materials_names_every_wheel_with_its_hash() -> None:
    """CycloneDX, the same text for the same wheels."""
    bill = json.loads(bill_of_materials(SOME, "1.0"))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    assert [(one["name"], one["version"], one["hashes"][0]["content"]) for one in bill["components"]] == [
        ("A_b", "1", "0" * 64),
        ("c", "2", "1" * 64),
    ]
    assert bill["components"][0]["purl"].startswith("pkg:pypi/a-b@1")
    assert bill_of_materials(SOME, "1.0") == bill_of_materials(SOME, "1.0")
    assert licence_list(SOME).splitlines() == ["A_b 1  MIT", "c 2    BSD-3-Clause"]


def test_checksums_cover_every_file(tmp_path: Path) -> None:
    """Nothing in a bundle is outside of them but the checksums themselves."""
    bundle = small_bundle(tmp_path / "bundle", "0.1.0")
    named = {line.split("  ", 1)[1] for line in (bundle / "SHA256SUMS").read_text().splitlines()}
    there = {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()}
    assert there - named == {"SHA256SUMS"}
    assert named <= there


def test_what_the_agent_needs_is_locked_at_the_tested_versions() -> None:
    """Each wheel of wheels.lock has its version from constraints.txt; nothing that pyproject.toml names is missing."""
    tested = {line.lower() for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    tested = {line.replace("_", "-") for line in tested}
    locked = set(re.findall(r"^([a-z0-9-]+==\S+)", wheels.LOCK.read_text(), re.MULTILINE))
    assert locked
    assert locked <= tested
    names = re.findall(
        r'^  "([A-Za-z0-9-]+)[><=]', (ROOT / "pyproject.toml").read_text().partition("[project.opt")[0], re.MULTILINE
    )
    assert len(names) >= 11
    assert set(names) <= {pinned.partition("==")[0] for pinned in locked}
