"""Every container of a real stack is killed and cut off during a run, one after the other and then all at once.

Skipped without a Docker engine. With NEWT_TEST_WRITE_DOCS=1 the table in docs/reliability.md becomes what was seen.
The same with processes instead of containers: tests/service/learner/test_whole_runs.py, test_hanging_services.py.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from compose_stack import BUILD_TIMEOUT_S, ROOT, TASKS, TINY_MODEL, TINY_PLAN, ComposeStack, running_stack, wait_for

PAGE = ROOT / "docs" / "reliability.md"
MARKS = ("<!-- faults: written by tests/e2e/test_faults.py -->", "<!-- faults: end -->")
SIMS = ("sim-mujoco", "sim-miniarcade")
CHECKPOINT_EVERY = 100
UPDATES_PER_ENV_STEP = 0.1
PARTITION_S = 8.0
RESUME_S = 60.0  # the promise
LEASE_S = 60.0  # NEWT_SIM_DEFAULT_LEASE_S

STORED = """
import sys, redis
from services.replay.episode import unpack
client = redis.Redis(host="redis")
for key in set(client.scan_iter(f"newt:replay:1:buffer:{sys.argv[1]}:e:*", count=1000)):
    print(unpack(client.get(key)).episode_id)
"""
ACKNOWLEDGED = """
import json, sys
for line in open(f"/data/runs/{sys.argv[1]}/logs/collector.log"):
    if line.startswith("{") and '"episode_acknowledged"' in line:
        print(json.loads(line)["episode"])
"""
KILL_CHILD = """
import os, pathlib, signal, sys
for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
    modules = [part for part in path.read_bytes().decode().split("\\0") if part.startswith("services.learner.")]
    if any(module.endswith("." + sys.argv[1]) for module in modules):
        os.kill(int(path.parent.name), signal.SIGKILL)
        print(path.parent.name)
"""

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(BUILD_TIMEOUT_S + 1200)]


@dataclass(frozen=True)
class Fault:
    """Something that happens to containers.

    Attributes:
        name: For the table.
        kind: kill (SIGKILL to the first process), partition (off the network for a while), or child (SIGKILL to one
            process of the run in the learner's container).
        victims: Services; for a child, its role.
        meaning: What it stands for and what Newt does about it.
        setting: What governs that.
    """

    name: str
    kind: str
    victims: tuple[str, ...]
    meaning: str
    setting: str


FAULTS = [
    Fault(
        "simulator killed",
        "kill",
        ("sim-mujoco",),
        "Running episodes of its tasks are lost; the collector opens new sessions. Other domains go on.",
        "`NEWT_LEARNER_DEPENDENCY_TIMEOUT_S` (at a run's start only)",
    ),
    Fault(
        "simulator cut off",
        "partition",
        ("sim-miniarcade",),
        "The step is repeated until it gets through. If the lease has run out meanwhile, as above.",
        "`NEWT_SIM_DEFAULT_LEASE_S`",
    ),
    Fault(
        "planner killed",
        "kill",
        ("planner",),
        "It holds nothing that matters: the new one gets the newest weights from the learner, callers repeat.",
        "`replicas`: with two, callers do not notice",
    ),
    Fault(
        "planner cut off",
        "partition",
        ("planner",),
        "Plans are repeated; the weights' stream is opened again.",
        "`NEWT_PLANNER_HUB`",
    ),
    Fault(
        "replay killed",
        "kill",
        ("replay",),
        "The new one reads all episodes from Redis. Appends are repeated, which their ids make harmless.",
        "`NEWT_REPLAY_REMEMBERED_IDS`",
    ),
    Fault("replay cut off", "partition", ("replay",), "As above, and its memory is still there.", "none"),
    Fault(
        "Redis killed",
        "kill",
        ("redis",),
        "Batches go on from replay's memory, appends wait. What Redis forgot is stored again.",
        "`NEWT_REPLAY_APPENDFSYNC`, `NEWT_COMPOSE_REDIS_APPENDFSYNC`",
    ),
    Fault(
        "Redis cut off",
        "partition",
        ("redis",),
        "As above; REST answers 503 meanwhile, the run's processes keep their progress to themselves.",
        "`NEWT_REPLAY_REDIS_TIMEOUT_S`",
    ),
    Fault(
        "trainer killed",
        "child",
        ("trainer",),
        "Started again by the API, from the newest checkpoint. Collection goes on until it is too far ahead.",
        "`NEWT_LEARNER_MAX_RESTARTS`, `schedule.checkpoint_every_updates`",
    ),
    Fault(
        "collector killed",
        "child",
        ("collector",),
        "Started again by the API. Running episodes are lost; new ones get ids above all earlier ones.",
        "`NEWT_LEARNER_MAX_RESTARTS`",
    ),
    Fault(
        "learner killed",
        "kill",
        ("learner",),
        "API, trainer and collector die together. The next API finds the run active and starts it again.",
        "`schedule.checkpoint_every_updates`",
    ),
    Fault(
        "learner cut off",
        "partition",
        ("learner",),
        "The run's processes live and wait for every other service. If its address has changed, gRPC's keepalive "
        "notices dead connections, within 40 s each.",
        "none",
    ),
    Fault(
        "all killed at once",
        "kill",
        ("redis", "replay", "planner", "learner", *SIMS),
        "A power cut. Redis reads its append-only file, then all of the above.",
        "`NEWT_COMPOSE_REDIS_APPENDFSYNC=always` (here), or up to 2 s of episodes are lost",
    ),
]


@dataclass
class Outcome:
    """What a fault did."""

    resumed_s: float
    updates_repeated: int
    env_steps_fell: int
    acknowledged: int
    stored: int


@dataclass
class Watch:
    """Looks at a run's counters all the time."""

    stack: ComposeStack
    run_id: str
    seen: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="watch", daemon=True)
        self._http = httpx.Client(base_url=self.stack.rest.base_url, timeout=5)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()
        self._http.close()

    def newest(self) -> dict[str, Any]:
        wait_for(lambda: self.seen, "a first look at the run", 60)
        return self.seen[-1]

    def _loop(self) -> None:
        while not self._over.wait(0.25):
            try:
                reply = self._http.get(f"/runs/{self.run_id}")
            except httpx.TransportError:
                continue
            if reply.status_code == 200:
                run = reply.json()
                progress = run["progress"]
                updates = progress["pretrain_updates"] + progress["updates"]
                self.seen.append({"state": run["state"], "error": run["error"], "updates": updates, **_flat(progress)})


def _flat(progress: dict[str, Any]) -> dict[str, Any]:
    return {"env_steps": progress["env_steps"], "waiting_on": progress["waiting_on"], "stage": progress["stage"]}


@pytest.fixture(scope="module")
def stack() -> Iterator[ComposeStack]:
    # All at once loses nothing that was acknowledged only if Redis waits for the disk.
    settings = {"NEWT_COMPOSE_LOG_LEVEL": "DEBUG", "NEWT_COMPOSE_REDIS_APPENDFSYNC": "always"}
    with running_stack(settings=settings) as stack:
        yield stack


@pytest.fixture(scope="module")
def processes(stack: ComposeStack) -> dict[str, int]:
    """How many each container has before there is a run."""
    return {service: len(_processes(stack, service)) for service in ("learner", *SIMS)}


@pytest.fixture(scope="module")
def watch(stack: ComposeStack, processes: dict[str, int]) -> Iterator[Watch]:
    """A run that would go on for an hour."""
    schedule = {
        "total_env_steps": 1_000_000,
        "seed_env_steps": 300,
        "pretrain_updates": 20,
        "updates_per_env_step": UPDATES_PER_ENV_STEP,
        "checkpoint_every_updates": CHECKPOINT_EVERY,
    }
    body = {
        "tasks": list(TASKS),
        "preset": "laptop",
        "model": TINY_MODEL,
        "plan": TINY_PLAN,
        "schedule": schedule,
        "replay": {"batch_size": 16},
        "demos": {"scripted_episodes": 1},
        "evaluation": {"episodes_per_task": 0, "videos": False},
    }
    run_id = stack.submit(body)
    with Watch(stack, run_id) as watch:
        wait_for(lambda: watch.newest()["updates"] > CHECKPOINT_EVERY + 20, "a run beyond its first checkpoint", 240)
        yield watch


@pytest.fixture(scope="module")
def outcomes() -> Iterator[dict[str, Outcome]]:
    outcomes: dict[str, Outcome] = {}
    yield outcomes
    if os.environ.get("NEWT_TEST_WRITE_DOCS") == "1" and len(outcomes) == len(FAULTS):
        before, _, rest = PAGE.read_text().partition(MARKS[0])
        PAGE.write_text(before + MARKS[0] + "\n" + _table(outcomes) + MARKS[1] + rest.partition(MARKS[1])[2])


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name.replace(" ", "-") for fault in FAULTS])
def test_a_run_outlives(fault: Fault, stack: ComposeStack, watch: Watch, outcomes: dict[str, Outcome]) -> None:
    _assert_goes_on(watch, "the run before the fault", RESUME_S)
    first = len(watch.seen)
    back = _strike(stack, fault)
    first_after = len(watch.seen)
    # Looks that were under way may still show the state before.
    _assert_goes_on(watch, f"updates and env steps after: {fault.name}", RESUME_S, skip=first_after + 1)
    resumed_s = time.monotonic() - back
    looks = watch.seen[max(0, first - 1) :]
    fell = {name: _largest_fall([look[name] for look in looks]) for name in ("updates", "env_steps")}
    assert fell["updates"] <= CHECKPOINT_EVERY
    assert fell["env_steps"] <= CHECKPOINT_EVERY / UPDATES_PER_ENV_STEP
    acknowledged = stack.python("learner", ACKNOWLEDGED, watch.run_id).split()
    stored = stack.python("replay", STORED, watch.run_id).split()
    assert len(stored) == len(set(stored)), "stored twice"
    assert set(acknowledged) <= set(stored), sorted(set(acknowledged) - set(stored))[:10]
    assert len(acknowledged) > len(TASKS)
    for service in ("redis", "replay", "planner", "learner", *SIMS):
        wait_for(lambda s=service: stack.healthy(s), f"{service} is healthy", 60)
    outcomes[fault.name] = Outcome(resumed_s, fell["updates"], fell["env_steps"], len(acknowledged), len(stored))


def test_nothing_is_left_when_the_run_has_ended(stack: ComposeStack, watch: Watch, processes: dict[str, int]) -> None:
    stack.rest.post(f"/runs/{watch.run_id}/cancel").raise_for_status()
    wait_for(lambda: watch.newest()["state"] == "cancelled", "cancelled", 60)
    for service, number in processes.items():
        wait_for(
            lambda s=service, n=number: len(_processes(stack, s)) <= n,
            f"no more processes in {service} than before",
            60,
        )
        assert not [line for line in _processes(stack, service) if line.startswith("Z")], "zombies"
    # The sessions of a collector that was killed end with their leases.
    for gauge in ("newt_sim_sessions", "newt_sim_instances"):
        wait_for(
            lambda g=gauge: [float(row["value"][1]) for row in stack.query(g)] == [0.0] * len(SIMS),
            f"{gauge} 0 in all simulators",
            LEASE_S + 30,
        )


def _strike(stack: ComposeStack, fault: Fault) -> float:
    """Makes the fault happen; returns the moment when what it hit runs again."""
    if fault.kind == "partition":
        for victim in fault.victims:
            stack.partition(victim)
        time.sleep(PARTITION_S)
        for victim in fault.victims:
            stack.heal(victim)
        return time.monotonic()
    if fault.kind == "child":
        assert stack.python("learner", KILL_CHILD, fault.victims[0]).split(), f"no {fault.victims[0]} to kill"
        return time.monotonic()
    before = {victim: stack.started_at(victim) for victim in fault.victims}
    stack.kill(fault.victims)
    wait_for(
        lambda: all(stack.started_at(victim) != started for victim, started in before.items()),
        f"{', '.join(fault.victims)} started again by the engine",
        60,
        pause_s=0.1,
    )
    return time.monotonic()


def _assert_goes_on(watch: Watch, what: str, timeout_s: float, skip: int | None = None) -> None:
    """Both counters rise, twice: a new process may begin with a number that its predecessor had not reported yet."""
    start = len(watch.seen) if skip is None else skip

    def rises() -> bool:
        looks = watch.seen[start:]
        if looks:
            assert looks[-1]["state"] not in ("failed", "cancelled", "succeeded"), looks[-1]
        return all(_rises([look[name] for look in looks]) >= 2 for name in ("updates", "env_steps"))

    try:
        wait_for(rises, what, timeout_s)
    except AssertionError as error:
        raise AssertionError(f"{error}; last seen: {watch.seen[-1:]}") from error


def _rises(values: list[int]) -> int:
    """How often a counter has grown since it was lowest."""
    since = values[values.index(min(values)) :] if values else []
    return sum(before < now for before, now in itertools.pairwise(since))


def _largest_fall(values: list[int]) -> int:
    """By how much a counter was at most below what it had been before."""
    peak, fall = 0, 0
    for value in values:
        peak = max(peak, value)
        fall = max(fall, peak - value)
    return fall


def _processes(stack: ComposeStack, service: str) -> list[str]:
    """State and command line of every process in a container."""
    listing = stack.container(service).top(ps_args="-eo pid,stat,args")
    return [" ".join(row[1:]) for row in listing["Processes"]]


def _table(outcomes: dict[str, Outcome]) -> str:
    lines = [
        "| Fault | Goes on after | Updates repeated | Env steps fell by | Episodes acknowledged / in Redis "
        "| What happens | Setting |",
        "|---|---|---|---|---|---|---|",
    ]
    for fault in FAULTS:
        seen = outcomes[fault.name]
        lines.append(
            f"| {fault.name} | {seen.resumed_s:.0f} s | {seen.updates_repeated} | {seen.env_steps_fell} | "
            f"{seen.acknowledged} / {seen.stored} | {fault.meaning} | {fault.setting} |"
        )
    return "\n".join(lines) + "\n"
