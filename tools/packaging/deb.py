"""A Debian package around a bundle: the same files, the same installer, called by dpkg instead of by hand.

The configuration is no conffile of dpkg's: install.sh makes it where there is none and never touches it again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tools.packaging.wheels import BuildError

ARCHES = {"x86_64": "amd64", "aarch64": "arm64"}
PLACE = "usr/lib/strip-agent/bundle"
CONTROL = """Package: strip-agent
Version: {version}
Architecture: {arch}
Maintainer: strip-agent
Installed-Size: {kib}
Depends: python3 (>= {oldest}), python3 (<< {beyond}), libc6 (>= {glibc}), systemd, passwd
Section: science
Priority: optional
Description: scores strip images from line-side cameras and publishes over MQTT
 A service that watches cameras' folders, scores each strip with one ONNX model, publishes
 the results, and takes new models while it runs. Set it up with: strip-agent setup
"""
# To purge takes the installer, which dpkg has removed by then.
SCRIPTS = {
    "postinst": f"""#!/bin/sh
set -e
[ "$1" = configure ] || exit 0
/{PLACE}/install.sh
""",
    "prerm": f"""#!/bin/sh
set -e
[ "$1" = remove ] || exit 0
/{PLACE}/install.sh --uninstall
mkdir -p /var/lib/strip-agent-purge
cp -r /{PLACE}/install.sh /{PLACE}/installer /var/lib/strip-agent-purge/
""",
    "postrm": """#!/bin/sh
set -e
[ "$1" = purge ] || exit 0
if [ -e /var/lib/strip-agent-purge/install.sh ]; then
  /var/lib/strip-agent-purge/install.sh --uninstall --purge
  rm -rf /var/lib/strip-agent-purge
fi
""",
}


def build_deb(bundle: Path, out: Path, epoch: int) -> Path:
    """Make the package of a bundle's folder; the same bytes for the same bundle. Raises BuildError."""
    if shutil.which("dpkg-deb") is None:
        raise BuildError("a .deb is made by dpkg-deb, which is not installed here")
    facts = json.loads((bundle / "bundle.json").read_bytes())
    arch, pythons = ARCHES[facts["arch"]], [tuple(map(int, python.split("."))) for python in facts["wheels"]]
    newest = max(pythons)
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        root = Path(scratch)
        root.chmod(0o755)
        shutil.copytree(bundle, root / PLACE)
        (root / "DEBIAN").mkdir()
        control = CONTROL.format(
            version=facts["version"], arch=arch, glibc=facts["glibc"],
            kib=sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file()) >> 10,
            oldest="{}.{}".format(*min(pythons)), beyond=f"{newest[0]}.{newest[1] + 1}",
        )  # fmt: skip
        (root / "DEBIAN/control").write_text(control, encoding="utf-8")
        for name, text in SCRIPTS.items():
            (root / "DEBIAN" / name).write_text(text, encoding="utf-8")
            (root / "DEBIAN" / name).chmod(0o755)
        for path in root.rglob("*"):
            os.utime(path, (epoch, epoch))
        target = out / f"strip-agent_{facts['version']}_{arch}.deb"
        # The wheels are compressed already.
        command = ["dpkg-deb", "--root-owner-group", "-Znone", "--build", str(root), str(target)]
        environment = os.environ | {"SOURCE_DATE_EPOCH": str(epoch)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode != 0:
            raise BuildError(f"dpkg-deb: {done.stderr.strip()}")
    return target
