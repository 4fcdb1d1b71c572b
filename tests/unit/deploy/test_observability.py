"""Prometheus rules and Grafana dashboards, without a running service."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from manifests import overlay
from prometheus_client import REGISTRY

import services.learner.metrics
import services.planner.metrics
import services.replay.metrics
import services.sim.metrics  # noqa: F401 - all four register their metrics
from deploy import rules
from deploy.dashboards import DASHBOARDS, DATASOURCE, FOLDER, dashboard

ROOT = Path(__file__).resolve().parents[3]
PROMETHEUS = ROOT / "deploy" / "prometheus"
QUERIES = [expr for panels in DASHBOARDS.values() for panel in panels for expr, _ in panel.queries]


def promtool(*arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_configuration_is_valid() -> None:
    promtool("check", "config", str(PROMETHEUS / "prometheus.yml"))


def test_alerts_fire_when_they_should() -> None:
    promtool("test", "rules", str(PROMETHEUS / "rules.test.yml"))


def test_every_alert_is_tested() -> None:
    groups = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}
    tests = yaml.safe_load((PROMETHEUS / "rules.test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test.get("alert_rule_test", [])]
    assert alerts == {case["alertname"] for case in cases if case["exp_alerts"]}


def test_every_query_is_valid(tmp_path: Path) -> None:
    recorded = [
        {"record": f"panel:{i}", "expr": expr.replace("$__rate_interval", "1m")} for i, expr in enumerate(QUERIES)
    ]
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": recorded}]}))
    promtool("check", "rules", str(path))


def test_every_metric_exists() -> None:
    """A misspelt name would make an alert that never fires, and a panel that is always empty."""
    known = set(REGISTRY._names_to_collectors)
    used = set(re.findall(r"\bnewt_[a-z_]+", " ".join(QUERIES) + (PROMETHEUS / "rules.yml").read_text()))
    assert used <= known, used - known


def test_every_recording_is_shown() -> None:
    groups = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"]
    recorded = {rule["record"] for group in groups for rule in group["rules"] if "record" in rule}
    assert recorded == set(re.findall(r"\bnewt:[a-z_0-9:]+", " ".join(QUERIES)))


def test_the_operators_rules_are_the_same() -> None:
    groups = yaml.safe_load(rules.SOURCE.read_text())["groups"]
    assert yaml.safe_load(rules.TARGET.read_text())["spec"] == {"groups": groups}


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_do_not_overlap(name: str) -> None:
    cells = [
        (panel["gridPos"]["x"] + dx, panel["gridPos"]["y"])
        for panel in dashboard(name)["panels"]
        for dx in range(panel["gridPos"]["w"])
    ]
    assert len(cells) == len(set(cells)), "panels overlap"
    assert max(x for x, _ in cells) < 24


def test_grafana_finds_its_data_and_its_dashboards() -> None:
    """What it reads at its start agrees with what compose mounts and starts."""
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    mounted = dict(volume.split(":")[:2] for volume in services["grafana"]["volumes"])
    assert mounted["./deploy/grafana/provisioning"] == "/etc/grafana/provisioning"
    folder = ROOT / "deploy" / "grafana" / "provisioning"
    # One that is missing is an error in its log at each start.
    assert {path.name for path in folder.iterdir()} == {"alerting", "dashboards", "datasources", "plugins"}
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert {key: source[key] for key in ("type", "uid")} == DATASOURCE
    url = httpx.URL(source["url"])
    assert services[url.host]["ports"][0].endswith(f":{url.port}")
    (provider,) = yaml.safe_load((folder / "dashboards" / "newt.yaml").read_text())["providers"]
    assert provider["options"]["path"] == mounted["./deploy/grafana/dashboards"]
    home = Path(services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == provider["options"]["path"]
    assert home.stem in DASHBOARDS


def test_kubernetes_gets_the_same_dashboards() -> None:
    (found,) = (item for item in overlay("servicemonitor") if item["metadata"]["name"] == "newt-dashboards")
    assert found["data"] == {f"{name}.json": (FOLDER / f"{name}.json").read_text() for name in DASHBOARDS}
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"


def left_out(ours: Any, theirs: Any, at: str = "") -> list[str]:
    """Where something of ours is not in theirs, which may have more."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return [place for key in ours for place in left_out(ours[key], theirs.get(key), f"{at}.{key}")]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = enumerate(zip(ours, theirs, strict=True))
        return [place for i, (one, other) in pairs for place in left_out(one, other, f"{at}[{i}]")]
    return [] if ours == theirs else [at]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_grafanas_own_model_knows_every_field(name: str) -> None:
    """Grafana ignores a field that it does not know, and shows the panel as if it were not there."""
    register_default_plugins()
    ours = dashboard(name)
    assert left_out(ours, json.loads(json.dumps(Dashboard.from_json(ours), cls=JSONEncoder))) == []
    ours["panels"][0]["fieldConfg"] = {}
    assert left_out(ours, json.loads(json.dumps(Dashboard.from_json(ours), cls=JSONEncoder))) == [
        ".panels[0].fieldConfg"
    ]
