"""The nginx configuration of docs/scada/, in a real nginx: pictures for reading, and nothing else."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from agent.heatmap_names import heatmap_stem
from tests.helpers.broker import free_port, wait_for
from tests.helpers.repository import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")

AROUND = """
daemon off;
{user}
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/pictures.conf;
}}
"""
STEM = heatmap_stem("top", 1_795_391_301_444_000_000, "S1011 ü.tif", "0123456789abcdef", 1)


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Serve a heatmap folder that has more in it than is anybody's business."""
    folder = tmp_path_factory.mktemp("nginx")
    heatmaps = folder / "heatmaps"
    (heatmaps / STEM).parent.mkdir(parents=True)
    for ending in (".png", ".tiff", ".json"):
        (heatmaps / (STEM + ending)).write_bytes(f"the {ending}".encode())
    (heatmaps / STEM).with_name(".half-written.png").write_bytes(b"half")
    (heatmaps / STEM).with_name("notes.txt").write_bytes(b"a note")
    (folder / "secret.png").write_bytes(b"secret")
    (heatmaps / STEM).with_name("link.png").symlink_to(folder / "secret.png")
    (heatmaps / "secret.png").write_bytes(b"secret")
    port = free_port()
    text = (ROOT / "docs" / "scada" / "nginx-pictures.conf").read_text()
    text = text.replace("listen 8081;", f"listen 127.0.0.1:{port};", 1)
    (folder / "pictures.conf").write_text(text.replace("/var/lib/strip-agent/heatmaps", str(heatmaps)))
    user = "user root;" if os.geteuid() == 0 else ""  # www-data cannot read a test's folder
    (folder / "nginx.conf").write_text(AROUND.format(folder=folder, user=user))
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen([str(NGINX), "-c", str(folder / "nginx.conf")], stdout=out, stderr=out)
    try:
        wait_for(lambda: answers(port), f"nginx answers (see {folder}/error.log)")
        yield port
    finally:
        process.terminate()
        process.wait(120)


def answers(port: int) -> bool:
    """Whether it is up."""
    with contextlib.suppress(OSError):
        return ask(port, "/")[0] == 404
    return False


def ask(port: int, path: str, method: str = "GET") -> tuple[int, bytes, dict[str, str]]:
    """Ask for a path as it is written, without tidying it up; give status, content, headers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.putrequest(method, path)
    connection.putheader("Content-Length", "0")
    connection.endheaders()
    response = connection.getresponse()
    answer = (response.status, response.read(), dict(response.getheaders()))
    connection.close()
    return answer


@pytest.mark.parametrize(
    ("ending", "kind"), [(".png", "image/png"), (".tiff", "image/tiff"), (".json", "application/json")]
)
def test_what_a_result_names_can_be_had(port: int, ending: str, kind: str) -> None:
    """By the template `http://host:8081/{path}`, byte by byte, as what it is."""
    status, content, headers = ask(port, f"/{STEM}{ending}")
    assert (status, content) == (200, f"the {ending}".encode())
    assert headers["Content-Type"] == kind
    assert "immutable" in headers["Cache-Control"]
    assert ask(port, f"/{STEM}{ending}", "HEAD")[0] == 200


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "MKCOL", "PATCH"])
def test_nothing_can_be_changed(port: int, method: str) -> None:
    """Reading is all."""
    assert ask(port, f"/{STEM}.png", method)[0] in {403, 405}
    assert ask(port, f"/{STEM}.png")[1] == b"the .png"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/top/",
        f"/{STEM.rpartition('/')[0]}/",
        f"/{STEM.rpartition('/')[0]}/.half-written.png",
        f"/{STEM.rpartition('/')[0]}/notes.txt",
        f"/{STEM.rpartition('/')[0]}/link.png",
        "/secret.png",
        "/top/2026-11-22/../../../secret.png",
        "/top/2026-11-22/%2e%2e/%2e%2e/%2e%2e/secret.png",
        "/top/2026-11-22/..%2f..%2f..%2fsecret.png",
        f"/{STEM}.png%00.json",
    ],
)
def test_nothing_else_can_be_seen(port: int, path: str) -> None:
    """No lists, no half-written file, no file of another kind, no way out of the folder, by a link neither."""
    status, content, _ = ask(port, path)
    assert status in {400, 403, 404}, content
    assert b"secret" not in content
