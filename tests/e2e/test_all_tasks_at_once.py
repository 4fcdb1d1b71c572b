"""All 200 training tasks in one run: every service, all ten domains, on a small machine."""

from __future__ import annotations

import math
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from bench.memory import resident_mb
from newt.client import SimClient
from newt.client.replay import ReplayClient
from newt.local import control
from newt.local.control import StackState
from newt.local.stack import StackConfig
from newt.tasks.domains import DOMAINS, installed_domains
from newt.tasks.registry import select_tasks
from newt.wire.episodes import Behaviour
from newt.wire.v1 import sim_pb2

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.skipif(set(installed_domains()) != set(DOMAINS), reason="needs newt[all-domains]"),
]

MOST_MB = 24 * 1024**3 / 1e6
ENV_STEPS = 1000  # In each of two runs.
LEAD_STEPS = 10
RUN: dict[str, Any] = {
    "tasks": ["mmbench"],
    "preset": "laptop",
    "model": {"size": "XS"},
    "plan": {"num_samples": 16, "num_policy_trajectories": 4, "num_elites": 4, "iterations": 1},
    # Planning from the first step on, by an agent that knows nothing.
    "schedule": {
        "total_env_steps": ENV_STEPS,
        "seed_env_steps": 0,
        "updates_per_env_step": 0.01,
        "publish_every_s": 1.0,
    },
    "demos": {"scripted_episodes": 0},
    "replay": {"batch_size": 32},
    # Whole episodes count: without this, fast simulators would fill the run before slow ones have built theirs.
    "collect": {"lead_limit_steps": LEAD_STEPS},
    "evaluation": {"episodes_per_task": 0, "videos": False},
}


class Peak:
    """The most memory that a process and its descendants held during a `with` block, MB."""

    def __init__(self, pid: int) -> None:
        self.mb = 0.0
        self._pid, self._over = pid, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(1.0):
            self.mb = max(self.mb, resident_mb(self._pid))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of what `newt up` starts, with one worker process per simulator and stand-ins for ManiSkill's meshes."""
    from maniskill_stand_ins import write_all

    home, assets = tmp_path_factory.mktemp("newt"), tmp_path_factory.mktemp("maniskill")
    write_all(assets)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MS_ASSET_DIR", str(assets))
        try:
            control.up(StackConfig(home, tuple(DOMAINS), fixed_ports=False, sim_workers=1))
            yield home
        finally:
            control.down(home)


def running(home: Path) -> StackState:
    state = control.read(home)
    assert state is not None
    return state


def train(stack: StackState, seed: int) -> dict[str, Any]:
    """A run from its request to its end."""
    with httpx.Client(base_url=stack.rest_url, timeout=20.0) as http:
        reply = http.post("/runs", json={**RUN, "seed": seed})
        assert reply.status_code == 201, reply.text
        while True:
            run: dict[str, Any] = http.get(f"/runs/{reply.json()['id']}").json()
            if run["state"] in ("succeeded", "failed", "cancelled"):
                return run
            time.sleep(0.5)


def addresses(stack: StackState) -> dict[str, str]:
    return {service["name"]: service["address"] for service in stack.services}


def steps_taken(stack: StackState) -> Counter[str]:
    """Steps of single instances by domain, since the simulators started."""
    taken: Counter[str] = Counter()
    for service in stack.services:
        if service["name"].startswith("sim-"):
            page = urllib.request.urlopen(f"http://127.0.0.1:{service['metrics']}/metrics", timeout=10).read().decode()
            for line in page.splitlines():
                if line.startswith("newt_sim_env_steps_total{"):
                    taken[line.split('"')[1]] += int(float(line.split()[-1]))
    return taken


def instances_in_use(stack: StackState) -> int:
    used = 0
    for name, address in addresses(stack).items():
        if name.startswith("sim-"):
            with SimClient(address, timeout_s=10) as client:
                used += client.stub.Describe(sim_pb2.DescribeRequest(), timeout=10).used_instances
    return used


def test_the_whole_set_trains_twice_without_a_crash_or_a_leak(home: Path) -> None:
    stack = running(home)
    per_domain = Counter(task.domain for task in select_tasks(["mmbench"]))
    assert sum(per_domain.values()) == 200
    supervisor = psutil.Process(stack.pid)
    processes, resting = len(supervisor.children(recursive=True)), [resident_mb(stack.pid)]
    for seed in (1, 2):
        before, start = steps_taken(stack), time.monotonic()
        with Peak(stack.pid) as peak:
            run = train(stack, seed)
        assert run["state"] == "succeeded", run["error"]
        progress = run["progress"]
        assert progress["env_steps"] >= ENV_STEPS
        assert progress["updates"] == progress["total_updates"] == math.floor(0.01 * ENV_STEPS)
        assert progress["restarts"] == 0
        taken = steps_taken(stack) - before
        # A vector step moves every instance, and nobody is further ahead of another than the limit.
        rounds = {domain: taken[domain] / count for domain, count in per_domain.items()}
        assert min(rounds.values()) > 2 * LEAD_STEPS
        assert max(rounds.values()) - min(rounds.values()) <= LEAD_STEPS + 1
        with ReplayClient(addresses(stack)["replay"]) as replay:
            episodes = list(replay.read_episodes(buffer_id=run["id"]))
        assert {episode.behaviour for episode in episodes} == {Behaviour.PLANNER}
        assert instances_in_use(stack) == 0
        assert peak.mb < MOST_MB
        deadline = time.monotonic() + 60
        while len(supervisor.children(recursive=True)) > processes:  # The run's own end a moment later.
            assert time.monotonic() < deadline
            time.sleep(0.2)
        resting.append(resident_mb(stack.pid))
        print(
            f"run {seed}: {time.monotonic() - start:.0f} s, {sum(taken.values())} steps taken, peak {peak.mb:.0f} MB, "
            f"at rest {resting[-1]:.0f} MB (at first {resting[0]:.0f} MB)"
        )
    # The first run imports simulators; what the second one adds to that would be lost with every run.
    assert resting[2] < 1.1 * resting[1]
    assert {service["restarts"] for service in running(home).services} == {0}


def test_every_domain_set_list_and_glob_is_accepted(home: Path) -> None:
    with httpx.Client(base_url=running(home).rest_url, timeout=20.0) as http:
        for tasks in (*([domain] for domain in DOMAINS), ["mmbench"], ["test20"], ["mw-push", "atari-p*", "og-ant?*"]):
            reply = http.post("/runs", json={**RUN, "tasks": tasks})
            assert reply.status_code == 201, reply.text
            assert reply.json()["tasks"] == [task.name for task in select_tasks(tasks)]
            cancelled = http.post(f"/runs/{reply.json()['id']}/cancel")
            assert cancelled.json()["state"] == "cancelled"
