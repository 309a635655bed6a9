#!/bin/sh
# strip-agent VERSION for Linux on ARCH: one file, no network needed.
#
#   sh FILE.run                     install, or upgrade what is installed; FILE.run --help names what else it can do
#   sh FILE.run --unpack FOLDER     only unpack it
set -eu
payload() { tail -n +LINES "$0"; }
complain() { echo "strip-agent: $*" >&2; exit 1; }
[ "$(payload | sha256sum)" = "SHA256  -" ] ||
  complain "damaged_bundle: $0 is damaged or was not copied completely; copy it again and compare its sha256"
if [ "${1:-}" = --unpack ]; then
  [ "$#" -eq 2 ] || complain "usage: sh $0 --unpack FOLDER"
  mkdir -p "$2"
  payload | tar -xf - -C "$2"
  exit
fi
folder=$(mktemp -d "${TMPDIR:-/var/tmp}/strip-agent.XXXXXX")
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT TERM HUP
payload | tar -xf - -C "$folder" || complain "no_space: $folder has no room; TMPDIR=FOLDER names another place"
status=0
"$folder/NAME/install.sh" "$@" || status=$?
exit "$status"
