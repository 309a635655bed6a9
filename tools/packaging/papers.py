"""What a bundle contains, for who has to answer for it: a CycloneDX bill of materials and a list of licences."""

from __future__ import annotations

import json
import re
import uuid
import zipfile
from dataclasses import dataclass
from email.parser import HeaderParser
from typing import TYPE_CHECKING, Any

from tools.packaging.wheels import sha256

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

LONGEST_LICENCE = 60  # some put the whole text where its name belongs


@dataclass(frozen=True, slots=True)
class Component:
    """One wheel."""

    file: str
    name: str
    version: str
    licence: str
    sha256: str


def component(wheel: Path) -> Component:
    """Read a wheel's own metadata."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
        fields = HeaderParser().parsestr(archive.read(name).decode())
    stated = fields.get("License-Expression") or fields.get("License") or ""
    classified = [
        one.rpartition("::")[2].strip() for one in fields.get_all("Classifier", []) if one.startswith("License")
    ]
    if not stated or "\n" in stated or len(stated) > LONGEST_LICENCE:
        stated = " and ".join(classified) or "see its METADATA"
    return Component(wheel.name, fields["Name"], fields["Version"], stated, sha256(wheel))


def bill_of_materials(components: Iterable[Component], version: str) -> str:
    """Write the components as CycloneDX 1.5 JSON; the same text for the same components."""
    listed: list[dict[str, Any]] = [
        {
            "type": "library",
            "bom-ref": one.file,
            "name": one.name,
            "version": one.version,
            "purl": f"pkg:pypi/{re.sub(r'[-_.]+', '-', one.name).lower()}@{one.version}?file_name={one.file}",
            "hashes": [{"alg": "SHA-256", "content": one.sha256}],
            "licenses": [{"license": {"name": one.licence}}],
        }
        for one in components
    ]
    content = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(listed))}",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": "strip-agent", "version": version}},
        "components": listed,
    }
    return json.dumps(content, indent=1) + "\n"


def licence_list(components: Iterable[Component]) -> str:
    """Write one line for each package; its licence's text lies in its `.dist-info` folder once it is installed."""
    found = {f"{one.name} {one.version}": one.licence for one in components}
    width = max(map(len, found))
    return "".join(
        f"{name:{width}}  {licence}\n" for name, licence in sorted(found.items(), key=lambda it: it[0].lower())
    )
