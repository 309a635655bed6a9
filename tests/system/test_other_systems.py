"""On the other systems that the pages name, each with its own Python: from the bundle, and from the package.

The first part is installed as README.md says, with the questions of `strip-agent setup` answered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agent import __version__
from tests.helpers.container import Container, tree
from tests.helpers.soak import SHARE
from tests.system.conftest import check_books, drop, fill_stick, follow, listen, status
from tools.packaging import bundle
from tools.packaging.deb import build_deb

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.soak, pytest.mark.root]
ANSWERS = "insp9\ntop\n/srv/cameras/top\n\nn\nlocalhost\n\n\n"
ACTIVE = "strip-agent models list | grep -q 'active .*difference.onnx'"

SYSTEMS = {"Debian 13": ("trixie", "3.13"), "Ubuntu 24.04": ("noble", "3.12")}


@pytest.mark.parametrize(("suite", "python"), SYSTEMS.values(), ids=SYSTEMS)
def test_installed_from_bundle_and_package_it_scores_on(suite: str, python: str, tmp_path: Path) -> None:
    """From the bundle: ready, a pushed model goes live, strips arrive. From the package: the same once more."""
    if suite == "noble" and SHARE < 1:
        pytest.skip("one system more is enough for every change; the whole of `make soak` has this one too")
    tree(suite)
    stick = tmp_path / "stick"
    stick.mkdir()
    fill_stick(stick, (python,))
    with Container(tmp_path / "box", suite, {stick: "/media/usb"}) as box:
        assert box.run("python3 --version").startswith(f"Python {python}.")
        listen(box)
        follow(box, "Install on a box", "README.md", ANSWERS)
        box.run("cp /media/usb/difference.onnx /srv/models/inbox/")
        box.wait_until(ACTIVE, "the model is active")
        drop(box, "bundle")
        check_books(box, 6)
        facts = status(box)
        assert (facts["version"], facts["health"]["status"]) == (__version__, "ok")
        box.run("/opt/strip-agent/current/install.sh --uninstall --purge")
        build_deb(stick / __version__, stick, bundle.LONG_AGO)
        box.run("apt-get install --yes /media/usb/strip-agent_*.deb", timeout=600)
        box.run("rm /root/results /srv/cameras/top/*; strip-agent setup --yes --name insp9")
        box.run("cp /media/usb/difference.onnx /srv/models/inbox/")
        box.wait_until(ACTIVE, "the model is active")
        drop(box, "package")
        box.wait_until("strip-agent status --json | grep -q '\"acknowledged\": 6,$'", "all strips are acknowledged")
        box.run("apt-get purge --yes strip-agent", timeout=300)
        assert "strip-agent" not in box.run("cat /etc/passwd /etc/group")
