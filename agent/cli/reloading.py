"""What `systemctl reload` starts: asks the running service to read its configuration again, and waits for its word.

A signal could not be answered: whoever edits a file has to learn here what is in the way.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from agent.cli.asking import facts_of
from agent.cli.doctor.walls import DEFAULT_CONFIG
from agent.cli.terminal import complain, in_file
from agent.config.file import ConfigError, load_config
from agent.errors import ExitCode
from agent.printable import printable


def main() -> None:
    """Print what is different now; exit 1 where the service has changed nothing, 78 where the file is no good."""
    path = Path(sys.argv[1] if len(sys.argv) > 1 else DEFAULT_CONFIG)
    try:
        load_config(path, os.environ)
    except ConfigError as error:
        for problem in error.problems:
            complain(in_file(path, problem))
        sys.exit(ExitCode.CONFIG)
    facts = facts_of(path, {"command": "reload"})
    print(*map(printable, facts["changes"] or ["nothing is different"]), sep="\n")


if __name__ == "__main__":
    main()
