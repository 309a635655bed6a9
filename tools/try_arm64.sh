#!/usr/bin/env bash
# Try models on an emulated 64-bit Arm, with the very wheels that a bundle holds: tools/try_arm64.sh FOLDER MODEL.onnx...
#
# Needs root, debootstrap, qemu-aarch64 (Debian: qemu-user), a Python 3.11 or newer with pip, and internet the first time; FOLDER keeps
# the Debian tree and the wheels, 700 MB. CPU=cortex-a72 has no dot product, max (the default) has all that qemu knows.
# Minutes for an int8 file, a quarter of an hour for an fp32 one: it says whether the results are right, not how fast an Arm is.
set -euo pipefail
[ $# -ge 2 ] || { sed -n 2p "$0"; exit 2; }
mkdir -p "$1"
folder=$(realpath "$1")
shift
root=$(realpath "$(dirname "$0")/..")
tree=$folder/tree site=$folder/site cpu=${CPU:-max}

if [ ! -e "$folder/complete" ]; then
  rm -rf "$tree" "$site"
  debootstrap --arch=arm64 --foreign --variant=minbase --include=python3,libgomp1,libexpat1 bookworm "$tree"
  for package in "$tree"/var/cache/apt/archives/*.deb; do dpkg-deb -x "$package" "$tree"; done
  platforms=(--platform manylinux2014_aarch64)
  for minor in 17 27 28; do platforms+=(--platform "manylinux_2_${minor}_aarch64"); done
  "${PYTHON:-python3}" -m pip install --quiet --disable-pip-version-check --target "$site" --no-deps --require-hashes \
    --only-binary=:all: --implementation cp --python-version 3.11 "${platforms[@]}" --requirement "$root/tools/packaging/wheels.lock"
  touch "$folder/complete"
fi

# qemu shows programs the files of its own machine, except where the tree has one of that name: without an Arm's cpuinfo
# onnxruntime crashes at its import, and takes what stands here for what the processor can.
features="fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
[ "$cpu" != max ] || features="$features atomics fphp asimdhp asimdrdm asimddp"
mkdir -p "$tree/proc"
for core in $(seq 0 $(($(nproc) - 1))); do
  printf 'processor\t: %d\nFeatures\t: %s\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\n\n' \
    "$core" "$features"
done >"$tree/proc/cpuinfo"

PYTHONPATH=$root:$site PYTHONDONTWRITEBYTECODE=1 exec qemu-aarch64 -cpu "$cpu" -L "$tree" "$tree/usr/bin/python3.11" - "$@" <<'PYTHON'
import platform
import sys
from pathlib import Path

from agent.worker.model import load_model
from agent.worker.trial import allowed_difference, prove
import onnxruntime

print(f"{platform.machine()}, Python {platform.python_version()}, onnxruntime {onnxruntime.__version__}")
for name in sys.argv[1:]:
    model, proof = prove(load_model(Path(name).read_bytes(), threads=None, unlabelled_input_scale="auto"))
    found = "none" if proof.golden_difference is None else f"off by {proof.golden_difference:.6f}"
    print(f"{name}: golden strip {found}, allowed is {allowed_difference(model.facts):g}; {proof.sight.describe()}", flush=True)
PYTHON
