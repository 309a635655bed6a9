#!/bin/sh
# Install strip-agent from this folder, upgrade to it, go back, or uninstall; --help lists what can be asked for.
# It needs a shell, Python 3.11 to 3.13 and systemd; no network, pip, venv or sudo. Run again, it changes nothing, or finishes
# what was interrupted.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
for python in "${STRIP_AGENT_PYTHON:-python3}" python3.13 python3.12 python3.11; do
  if "$python" -I -c 'import sys, ctypes, sqlite3, ssl, zipfile; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
    2>/dev/null; then
    exec "$python" -I -B -c 'import sys; sys.path.insert(0, sys.argv.pop(1)); from installer.main import main; main()' \
      "$here" "$@"
  fi
done
echo "strip-agent: python_unsupported: needs Python 3.11, 3.12 or 3.13 with its standard library (Debian, Ubuntu: package" \
  "python3); found $(python3 --version 2>&1 || :). Another one is named with STRIP_AGENT_PYTHON=/path/to/python3.12" >&2
exit 1
