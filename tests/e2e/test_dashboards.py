"""Every query of every dashboard, asked of a Prometheus that scrapes real services during a run."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from deploy.dashboards import DASHBOARDS
from newt.local import control, ports
from newt.local.stack import StackConfig

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
RULES = Path(__file__).resolve().parents[2] / "deploy" / "prometheus" / "rules.yml"
PANELS = [
    (name, panel.title, expr.replace("$__rate_interval", "2m"))
    for name, panels in DASHBOARDS.items()
    for panel in panels
    for expr, _ in panel.queries
]
RUN = {
    "tasks": ["mujoco-reacher"],
    "preset": "laptop",
    "schedule": {
        "total_env_steps": 100_000,
        "seed_env_steps": 200,
        "updates_per_env_step": 0.05,
        "eval_every_env_steps": 300,
        "publish_every_s": 2,
    },
    "demos": {"scripted_episodes": 0},
    "evaluation": {"episodes_per_task": 1},
    "replay": {"batch_size": 16},
}


class Prometheus:
    """A Prometheus with the project's rules, which scrapes a local stack under the job names of the deployments."""

    def __init__(self, home: Path, services: list[dict[str, Any]]) -> None:
        self.url = f"http://127.0.0.1:{ports.free_port()}"
        jobs = []
        for service in services:
            if service["name"] == "redis":
                continue
            target = f"127.0.0.1:{service['metrics']}"
            labels = {"service": service["name"]}
            job = service["name"].partition("-")[0]
            jobs.append({"job_name": job, "static_configs": [{"targets": [target], "labels": labels}]})
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": jobs,
        }
        (home / "prometheus.yml").write_text(yaml.safe_dump(config))
        with (home / "prometheus.log").open("wb") as log:
            self.process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={home / 'prometheus.yml'}",
                    f"--storage.tsdb.path={home / 'tsdb'}",
                    f"--web.listen-address={self.url.removeprefix('http://')}",
                ],
                stdout=log,
                stderr=log,
            )

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query; none while the server starts."""
        assert self.process.poll() is None, "Prometheus died"
        try:
            reply = httpx.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=20)
        except httpx.TransportError:
            return []
        if reply.status_code == 503:
            return []
        assert reply.status_code == 200, f"{expression}: {reply.text}"
        return list(reply.json()["data"]["result"])

    def stop(self) -> None:
        """Ends the server."""
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    home = tmp_path_factory.mktemp("observed")
    state = control.up(StackConfig(home / "stack", ("mujoco",), fixed_ports=False, sim_workers=1))
    server = None
    try:
        server = Prometheus(home, state.services)
        reply = httpx.post(f"{state.rest_url}/runs", json=RUN, timeout=20)
        assert reply.status_code == 201, reply.text
        yield server
    finally:
        if server is not None:
            server.stop()
        control.down(home / "stack")


def has_numbers(samples: list[dict[str, Any]]) -> bool:
    return any(sample["value"][1] != "NaN" for sample in samples)


def test_no_panel_is_empty(prometheus: Prometheus) -> None:
    deadline = time.monotonic() + 300
    empty = PANELS
    while empty := [panel for panel in empty if not has_numbers(prometheus.query(panel[2]))]:
        assert time.monotonic() < deadline, f"empty panels: {empty}"
        time.sleep(1)


def test_every_service_is_scraped(prometheus: Prometheus) -> None:
    up = {sample["metric"]["service"]: sample["value"][1] for sample in prometheus.query("up")}
    assert up == dict.fromkeys(("sim-mujoco", "replay", "planner", "learner"), "1")
