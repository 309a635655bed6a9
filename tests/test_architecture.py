"""The shape of the source: imports go down, outside things do not know each other, the supervisor stays small."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

AGENT = Path(__file__).parents[1] / "agent"

TIERS: dict[int, str] = {
    4: "cli demo",
    3: "service doctor oneshot",
    2: "intake strip_journey camera_files model_journey models publisher commands housekeeping health",
    1: "watching ledger mqtt workers worker control store inbox disposal ownership",
    0: "errors records config contract golden manifest"
    " messages files sdnotify logs settling wire strip_message slot_state show",
}
"""Every file and every package of agent/ by its name. A package is one thing: its files may import each other."""

OF_PIXELS = {"worker", "golden", "demo"}
"""The worker's process and what only it and the demo's simulated camera use; everything else is the supervisor."""

HEAVY = {"numpy", "onnxruntime", "tifffile", "imagecodecs", "cv2", "onnx", "torch"}
MAX_LINES = 330


def tier_of(name: str) -> int:
    """Return the tier of a file or package of agent/; one that is not in the table is a mistake."""
    tiers = [tier for tier, names in TIERS.items() if name in names.split()]
    assert len(tiers) == 1, f"agent/{name} stands in {len(tiers)} tiers of the table in {__file__}"
    return tiers[0]


def sources() -> list[Path]:
    """Return all source files below agent/."""
    return sorted(path for path in AGENT.rglob("*.py") if path != AGENT / "__init__.py")


def part(path: Path) -> str:
    """Return the name of the file or package directly below agent/ that a source file belongs to."""
    return path.relative_to(AGENT).parts[0].removesuffix(".py")


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


def parts_imported_by(path: Path) -> set[str]:
    """Return the other files and packages of agent/ that a source file imports."""
    dotted = [name.split(".") for name in imports(ast.parse(path.read_text()))]
    names = {name[1] for name in dotted if name[0] == "agent" and len(name) > 1}
    return names - {part(path), "__version__"}


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(AGENT)))
def test_imports_only_go_down(path: Path) -> None:
    """A file knows its own tier and those below it; a file for one outside thing knows no other outside thing."""
    tier = tier_of(part(path))
    for other in parts_imported_by(path):
        assert tier_of(other) <= tier, f"{path} is in tier {tier} and imports agent.{other} of tier {tier_of(other)}"
        assert tier != 1 or tier_of(other) != 1, f"{path} and agent.{other} are both about outside things"


def test_no_import_goes_in_a_circle() -> None:
    """Beside going down, imports within a tier have a direction."""
    graph: dict[str, set[str]] = {}
    for path in sources():
        graph.setdefault(part(path), set()).update(parts_imported_by(path))
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize(
    "path", [path for path in sources() if part(path) not in OF_PIXELS], ids=lambda path: str(path.relative_to(AGENT))
)
def test_the_supervisor_never_touches_pixels(path: Path) -> None:
    """No file of the supervisor imports an array library or a part that does; the command line may start the demo."""
    assert {name.split(".")[0] for name in imports(ast.parse(path.read_text()))} & HEAVY == set()
    allowed = {"demo"} if part(path) == "cli" else set()
    assert parts_imported_by(path) & OF_PIXELS <= allowed


@pytest.mark.parametrize("module", ["agent.service", "agent.cli"])
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
