"""The shape of the source: imports go down, outside things do not know each other, the supervisor stays small."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.helpers.repository import ROOT

if TYPE_CHECKING:
    from pathlib import Path

AGENT = ROOT / "agent"

TIERS: dict[int, str] = {
    4: "cli demo simulate",
    3: "service cli/doctor cli/oneshot hindsight web web/paint",
    2: "strips models publisher sparkplug ways control housekeeping heatmap_folder health alarms certificates loops"
    " drift metrics cameras reload shadow",
    1: "watching ledger mqtt supervision worker ownership control/endpoint"
    " models/store models/inbox_folder models/dealt_with models/trusted_keys strips/disposal",
    0: "errors records config contract messages files regular_files heatmap_names allocator sdnotify logs names"
    " settling wire clock printable page comparing patience running"
    " strips/message models/slot_state contract/golden cli/show cli/show_reviews"
    " drift/sketch drift/judging drift/student drift/wording"
    " sparkplug/payload sparkplug/metrics sparkplug/topics sparkplug/host",
}
"""Every room of agent/, and what stands in it on another tier than the rest. Files of a room may import each other."""

OF_PIXELS = {"worker", "contract/golden", "demo", "web/paint"}
"""The worker's process and what only it and the demo's simulated camera use; everything else is the supervisor."""

HEAVY = {"numpy", "onnxruntime", "tifffile", "imagecodecs", "cv2", "onnx", "torch"}
MAX_LINES = 330


ROOMS = {room: tier for tier, rooms in TIERS.items() for room in rooms.split()}


def room(place: str) -> str:
    """Return the room of the table that a place of agent/ (`models/store`) stands in: the longest name that fits."""
    fitting = [name for name in ROOMS if place == name or place.startswith(f"{name}/")]
    assert fitting, f"agent/{place} stands in no tier of the table in {__file__}"
    return max(fitting, key=len)


def sources() -> list[Path]:
    """Return all source files below agent/."""
    return sorted(path for path in AGENT.rglob("*.py") if path != AGENT / "__init__.py")


def place(path: Path) -> str:
    """Return where a source file stands in agent/: `models/store`; a package's face is the package."""
    return str(path.relative_to(AGENT).with_suffix("")).removesuffix("/__init__")


def imports(tree: ast.AST) -> set[str]:
    """Return every module that is imported anywhere in a file, dotted, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def rooms_imported_by(path: Path) -> set[str]:
    """Return the other rooms of agent/ that a source file imports."""
    dotted = [name.removeprefix("agent.") for name in imports(ast.parse(path.read_text())) if name.startswith("agent.")]
    return {room(name.replace(".", "/")) for name in dotted if name != "__version__"} - {room(place(path))}


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(AGENT)))
def test_imports_only_go_down(path: Path) -> None:
    """A file knows its own tier and those below it; a file for one outside thing knows no other outside thing."""
    tier = ROOMS[room(place(path))]
    for other in rooms_imported_by(path):
        assert ROOMS[other] <= tier, f"{path} is in tier {tier} and imports agent/{other} of tier {ROOMS[other]}"
        assert tier != 1 or ROOMS[other] != 1, f"{path} and agent/{other} are both about outside things"


def test_no_import_goes_in_a_circle() -> None:
    """Beside going down, imports within a tier have a direction."""
    graph: dict[str, set[str]] = {}
    for path in sources():
        graph.setdefault(room(place(path)), set()).update(rooms_imported_by(path))
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize(
    "path",
    [path for path in sources() if room(place(path)) not in OF_PIXELS],
    ids=lambda path: str(path.relative_to(AGENT)),
)
def test_the_supervisor_never_touches_pixels(path: Path) -> None:
    """No file of the supervisor imports an array library or a part that does; the command line may start the demo."""
    assert {name.split(".")[0] for name in imports(ast.parse(path.read_text()))} & HEAVY == set()
    allowed = {"demo"} if room(place(path)) == "cli" else set()
    assert rooms_imported_by(path) & OF_PIXELS <= allowed


@pytest.mark.parametrize("module", ["agent.service", "agent.cli.__main__"])
def test_importing_the_supervisor_loads_no_array_library(module: str) -> None:
    """Also not through a library, which would cost every box tens of megabytes."""
    script = f"import sys, {module}\nprint(sorted(set(sys.modules) & {HEAVY!r}))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(AGENT)))
def test_every_file_can_be_read_in_one_sitting(path: Path) -> None:
    """A file that grows beyond this tells more than one story."""
    lines = len(path.read_text().splitlines())
    assert lines <= MAX_LINES, f"{path} has {lines} lines; split it by step"


def test_the_table_names_nothing_twice() -> None:
    """Each name has exactly one tier."""
    names = " ".join(TIERS.values()).split()
    assert len(names) == len(set(names))
