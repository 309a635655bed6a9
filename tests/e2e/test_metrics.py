"""/metrics of a running service: it equals the ledger, survives kills, and is what the documentation says."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from tests.e2e.checks import check_audit
from tests.helpers.box import Box, drop_file, wait_for_results
from tests.helpers.broker import Broker, Subscriber, free_port, wait_for
from tests.helpers.metrics import get, of, scrape
from tests.helpers.models import difference_model
from tests.helpers.programs import needs
from tests.helpers.repository import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MONITORING = ROOT / "docs" / "monitoring"


@pytest.fixture
def metered(tmp_path: Path, broker: Broker) -> Iterator[tuple[Box, int]]:
    """Make a box with /metrics, and give its port."""
    port = free_port()
    box = Box(tmp_path / "box", broker.port, agent={"name": "metered"}, metrics={"listen": f"127.0.0.1:{port}"})
    difference_model(box.inbox / "model.onnx", model_id="seen", version=7)
    with box:
        yield box, port


def test_counters_equal_the_ledger_and_never_go_backwards_over_a_kill(
    metered: tuple[Box, int], broker: Broker, good_strip: Path, bad_part: Path
) -> None:
    """Verdicts, reasons and durations are those of the results; after kill -9 no counter is lower."""
    box, port = metered
    with Subscriber(broker.port, "strip-agent/metered/#") as subscriber:
        box.start()
        drop_file(good_strip, box.camera() / "good.tif")
        drop_file(bad_part, box.camera() / "bad.tif")
        (box.camera() / "text.tif").write_text("no strip at all, but long enough to be looked at as one")
        wait_for_results(subscriber, 3)
        wait_for(lambda: of(scrape(port), "strip_agent_acknowledged_seconds_count", camera="top") == 3, "counted")
        told = scrape(port)
        found = {
            (camera_labels["verdict"], camera_labels["reason"]): value
            for (name, labels), value in told.items()
            if name == "strip_agent_results_total" and (camera_labels := dict(labels))
        }
        assert found == {("ok", ""): 1, ("anomalous", ""): 1, ("invalid", "not_a_tiff"): 1}
        assert of(told, "strip_agent_strips_seen_total", camera="top") == 3
        assert of(told, "strip_agent_inference_seconds_count", camera="top") == 2
        assert of(told, "strip_agent_judged_seconds_bucket", camera="top", le="+Inf") == 3
        assert of(told, "strip_agent_status") == 0
        models = [dict(labels) for name, labels in told if name == "strip_agent_model"]
        assert [(one["model_id"], one["version"]) for one in models] == [("seen", "7")]
        check_audit(box, 3)
        box.kill()
        box.start()
        wait_for(lambda: ("strip_agent_model", ()) not in scrape(port), "it answers again")
        after = scrape(port)
        counters = [key for key in told if key[0].endswith(("_total", "_count", "_bucket", "_sum"))]
        assert len(counters) > 30
        assert [key for key in counters if after[key] < told[key]] == []
        assert box.stop() == 0


def test_what_is_documented_is_what_is_told(metered: tuple[Box, int]) -> None:
    """Every name stands in docs/monitoring.md, both formats can be read, dashboard and rules ask for nothing else."""
    box, port = metered
    box.start()
    wait_for(lambda: any(name == "strip_agent_model" for name, _ in scrape(port)), "the model is told")
    accept = b"GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text; version=1.0.0\r\n\r\n"
    head, _, body = get(port, accept).partition(b"\r\n\r\n")
    assert b"application/openmetrics-text" in head
    families = list(parse_openmetrics(body.decode()))  # type: ignore[no-untyped-call]
    documented = set(re.findall(r"`(strip_agent_\w+)`", (ROOT / "docs" / "monitoring.md").read_text()))
    suffix = {"counter": "_total", "info": "_info"}
    assert {family.name + suffix.get(family.type, "") for family in families} == documented
    known = documented | {f"{name}{end}" for name in documented for end in ("_bucket", "_sum", "_count")}
    asked = (MONITORING / "grafana.json").read_text() + (MONITORING / "alerts.yml").read_text()
    assert set(re.findall(r"\bstrip_agent_\w+", asked)) <= known
    assert json.loads((MONITORING / "grafana.json").read_text())["panels"]
    assert box.stop() == 0


@needs("promtool")
def test_promtool_is_content_with_figures_and_rules(metered: tuple[Box, int]) -> None:
    """Its own linter finds nothing, and every alert rule fires when it should and not before."""
    box, port = metered
    box.start()
    body = get(port).partition(b"\r\n\r\n")[2]
    checked = subprocess.run(["promtool", "check", "metrics"], input=body, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
    tested = subprocess.run(
        ["promtool", "test", "rules", "alerts_test.yml"], cwd=MONITORING, capture_output=True, text=True, check=False
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr
    rules = {rule["alert"] for rule in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]}
    fired = yaml.safe_load((MONITORING / "alerts_test.yml").read_text())["tests"]
    assert rules == {one["alertname"] for test in fired for one in test["alert_rule_test"] if one["exp_alerts"]}, (
        "each rule is tested once where it fires"
    )


@needs("prometheus")
def test_a_real_prometheus_scrapes_it(metered: tuple[Box, int], tmp_path: Path) -> None:
    """`up` is 1, and the figures can be asked for."""
    box, port = metered
    box.start()
    config = {
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [{"job_name": "strip-agent", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}],
    }
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    web = free_port()
    program = [
        "prometheus", f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{web}",
    ]  # fmt: skip
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(program, stdout=log, stderr=log) as prometheus:
        try:

            def asked(query: str) -> list[Any]:
                try:
                    answer = get(web, f"GET /api/v1/query?query={query} HTTP/1.0\r\n\r\n".encode())
                except OSError:
                    return []
                body = answer.partition(b"\r\n\r\n")[2]
                found: list[Any] = json.loads(body)["data"]["result"] if body.startswith(b"{") else []
                return found

            wait_for(lambda: [one["value"][1] for one in asked("up")] == ["1"], "it was scraped")
            wait_for(lambda: bool(asked("strip_agent_model")), "the model is known")
        finally:
            prometheus.terminate()
    assert box.stop() == 0
