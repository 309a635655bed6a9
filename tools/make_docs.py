"""Writes the pages of docs/ that are made from the source; `--check` only says whether they are up to date."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.docs_commands import command_pages
from tools.docs_configuration import configuration_markdown
from tools.docs_messages import message_pages
from tools.docs_sparkplug import sparkplug_page

DOCS = Path(__file__).resolve().parents[1] / "docs"


def pages() -> dict[str, str]:
    """Return the text of every page that is made, by its path below docs/."""
    made = {"configuration.md": configuration_markdown(), "sparkplug.md": sparkplug_page()}
    return {**made, **message_pages(), **command_pages()}


def main() -> int:
    """Write or check all pages; 1 when a check finds an old one."""
    old = [name for name, text in pages().items() if not (DOCS / name).exists() or (DOCS / name).read_text() != text]
    if "--check" in sys.argv:
        for name in old:
            print(f"docs/{name} is not up to date; run: make docs")
        return 1 if old else 0
    for name in old:
        (DOCS / name).parent.mkdir(parents=True, exist_ok=True)
        (DOCS / name).write_text(pages()[name])
        print(f"docs/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
