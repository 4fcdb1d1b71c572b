"""Every panel of every dashboard against a Prometheus that scrapes real services during a run."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from deploy.grafana.generate import DASHBOARDS
from newt.local import control, ports
from newt.local.stack import StackConfig

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="Prometheus is not installed"),
]
ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 400
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
    """A Prometheus with the project's rules, which scrapes a local stack."""

    def __init__(self, home: Path, services: list[dict[str, Any]]) -> None:
        self.url = f"http://127.0.0.1:{ports.free_port()}"
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(ROOT / "deploy" / "prometheus" / "rules.yml")],
            "scrape_configs": [
                {
                    "job_name": service["name"].partition("-")[0],
                    "static_configs": [
                        {"targets": [service["metrics"] or service["address"]], "labels": {"service": service["name"]}}
                    ],
                }
                for service in services
                if service["name"] != "redis"
            ],
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
        """The samples of an instant query."""
        reply = httpx.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=20)
        assert reply.status_code == 200, f"{expression}: {reply.text}"
        return list(reply.json()["data"]["result"])

    def stop(self) -> None:
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
    wanted = {
        (name, panel.title, expr.replace("$__rate_interval", "2m"))
        for name, panels in DASHBOARDS.items()
        for panel in panels
        if not panel.rare
        for expr, _ in panel.queries
    }
    deadline = time.monotonic() + DEADLINE_S
    empty = wanted
    while empty:
        assert prometheus.process.poll() is None, "Prometheus died"
        with contextlib.suppress(httpx.TransportError):  # still starting
            empty = {key for key in empty if not has_numbers(prometheus.query(key[2]))}
        assert not empty or time.monotonic() < deadline, f"empty panels: {sorted(empty)}"
        time.sleep(1)
