"""More than an hour of one run on a whole local stack, and what its processes hold on to (python -m bench.soak --help).

Four cheap tasks with a small ring: it is full after some minutes, and from then on nothing has a reason to grow. What
grows all the same is the slope of the table, which goes to docs/reliability.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import redis

from bench import machine
from bench.processes import stack_processes
from newt.cli.rest import Api
from newt.client.replay import ReplayClient
from newt.local import control
from newt.local.stack import StackConfig
from newt.local.state import StackState

TASKS = ("cartpole-balance", "reacher-easy", "pygame-cartpole-balance", "pygame-pong")
DOMAINS = ("dmcontrol", "miniarcade")
CAPACITY_ROWS = 8_000
RUN: dict[str, Any] = {
    "preset": "laptop",
    "tasks": list(TASKS),
    "seed": 1,
    "plan": {"num_samples": 32, "num_policy_trajectories": 4, "num_elites": 8, "iterations": 2},
    "schedule": {
        "total_env_steps": 100_000_000,
        "seed_env_steps": 2_500,
        "pretrain_updates": 50,
        "eval_every_env_steps": 10_000,
        "checkpoint_every_updates": 500,
        "keep_checkpoints": 3,
        "publish_every_s": 5.0,
    },
    "replay": {"capacity_rows": CAPACITY_ROWS, "batch_size": 64},
    "demos": {"scripted_episodes": 1},
    "evaluation": {"episodes_per_task": 1, "videos": False},
}
MAX_SLOPE_MB_PER_HOUR = 2.0
# After the ring is full: allocators and caches need some evaluations and weights to find their size.
SETTLE_S = 900.0
_BINS = 30
PAGE = Path(__file__).parents[1] / "docs/reliability.md"
_MARKS = ("<!-- soak: written by `make soak` -->", "<!-- soak: end -->")


@dataclass(frozen=True)
class Sample:
    """What one process held at one moment.

    Attributes:
        at_s: Seconds since the run started.
        pid: Its id.
        mb: Memory of its own, MB; of Redis also what it says itself, as a process of its own ("Redis' data").
        descriptors: Open ones.
        threads: Threads of the process.
    """

    at_s: float
    pid: int
    mb: float
    descriptors: int
    threads: int


@dataclass(frozen=True)
class Row:
    """One process over the measured window."""

    process: str
    mb_before: float
    mb_after: float
    mb_per_hour: float
    descriptors: tuple[int, int]
    threads: tuple[int, int]
    error: float = 0.0  # standard error of mb_per_hour

    @property
    def level(self) -> bool:
        """Whether it does not grow, as far as one can tell."""
        return self.mb_per_hour - 2 * self.error <= MAX_SLOPE_MB_PER_HOUR


def own_mb(pid: int) -> float:
    """Anonymous memory of a process, MB, swapped out or not.

    Pages of files are left out: the kernel takes idle ones back when it likes, and a slow leak could hide behind that.

    Raises:
        psutil.NoSuchProcess: It has ended.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError as error:
        raise psutil.NoSuchProcess(pid) from error
    kilobytes = re.findall(r"^(?:RssAnon|VmSwap):\s+(\d+) kB$", status, re.MULTILINE)
    return sum(map(int, kilobytes)) * 1024 / 1e6


def look(state: StackState, at_s: float) -> dict[str, Sample]:
    """All long-lived processes of a stack."""
    found: dict[str, Sample] = {}
    for name, process in stack_processes(state):
        with suppress(psutil.NoSuchProcess), process.oneshot():
            found[name] = Sample(at_s, process.pid, own_mb(process.pid), process.num_fds(), process.num_threads())
    return found


def redis_mb(address: str) -> float:
    """What Redis says that its data takes, MB."""
    host, _, port = address.rpartition(":")
    with redis.Redis(host=host, port=int(port), socket_timeout=10) as client:
        info: Any = client.info("memory")
    return float(info["used_memory"]) / 1e6


def slope_per_hour(samples: list[Sample]) -> tuple[float, float]:
    """Growth and its standard error, MB per hour: a line through the low ends (10 %) of equal parts of the window.

    What comes and goes, such as two versions of weights at once, is no leak; what a process never gives back is.
    """
    start, end = samples[0].at_s, samples[-1].at_s
    bins: dict[int, list[Sample]] = defaultdict(list)
    for sample in samples:
        bins[min(_BINS - 1, int(_BINS * (sample.at_s - start) / max(1e-9, end - start)))].append(sample)
    if len(bins) < 4:
        return 0.0, float("inf")
    hours = [statistics.median(s.at_s for s in part) / 3600 for part in bins.values()]
    lows = [np.quantile([s.mb for s in part], 0.1) for part in bins.values()]
    (slope, _), covariance = np.polyfit(hours, lows, 1, cov=True)
    return float(slope), float(np.sqrt(max(0.0, covariance[0, 0])))


def rows(samples: dict[str, list[Sample]], since_s: float) -> list[Row]:
    """The table, for processes that lived through the whole window."""
    table = []
    for name, every in sorted(samples.items()):
        window = [sample for sample in every if sample.at_s >= since_s]
        if len(window) < 10:
            continue
        tenth = max(1, len(window) // 10)
        slope, error = slope_per_hour(window)
        first, last = window[:tenth], window[-tenth:]
        table.append(
            Row(
                name,
                statistics.median(s.mb for s in first),
                statistics.median(s.mb for s in last),
                slope,
                (max(s.descriptors for s in first), max(s.descriptors for s in last)),
                (max(s.threads for s in first), max(s.threads for s in last)),
                error,
            )
        )
    return table


@contextmanager
def stack(home: Path) -> Iterator[StackState]:
    """The services on free ports."""
    config = StackConfig(home, DOMAINS, fixed_ports=False, sim_workers=1, owner_pid=os.getpid())
    try:
        yield control.up(config)
    finally:
        control.down(home.absolute())


def address_of(state: StackState, name: str) -> str:
    """host:port of a service."""
    return next(str(service["address"]) for service in state.services if service["name"] == name)


def measure(home: Path, seconds: float, every_s: float, output: Path) -> dict[str, Any]:
    """Starts the stack and the run, watches them, and returns what was seen; also written while it goes on."""
    samples: dict[str, list[Sample]] = defaultdict(list)
    full_at: float | None = None
    measured: dict[str, Any] = {}
    with (
        stack(home) as state,
        ReplayClient(address_of(state, "replay")) as replay,
        output.with_suffix(".samples.jsonl").open("w") as log,
    ):
        api = Api(state.rest_url)
        run_id = str(api.post("/runs", RUN)["id"])
        begin = time.monotonic()
        restarted: dict[str, int] = {}
        while (now := time.monotonic() - begin) < seconds:
            for name, sample in look(state, now).items():
                if samples[name] and samples[name][-1].pid != sample.pid:
                    restarted[name] = restarted.get(name, 0) + 1
                    samples[name].clear()
                samples[name].append(sample)
                log.write(json.dumps([name, *asdict(sample).values()]) + "\n")
            log.flush()
            with suppress(redis.RedisError):  # It may be starting again, which the table of processes shows.
                mb = redis_mb(address_of(state, "redis"))
                samples["redis: its data"].append(Sample(now, 0, mb, 0, 0))
                log.write(json.dumps(["redis: its data", now, 0, mb, 0, 0]) + "\n")
            run = api.get(f"/runs/{run_id}")
            if run["state"] in ("failed", "cancelled"):
                raise RuntimeError(f"the run ended: {run['state']} {run.get('error')}")
            if full_at is None and run["state"] == "training":
                buffer = replay.get_buffer(run_id)
                if sum(task.held_episodes for task in buffer.tasks) < sum(task.episodes for task in buffer.tasks):
                    full_at = now
                    print(f"{now:.0f} s: the ring is full", flush=True)
            since = (full_at + SETTLE_S) if full_at is not None else float("inf")
            measured = {
                "machine": machine.describe(),
                "load_average": machine.load(),
                "seconds": round(now),
                "ring_full_after_s": full_at and round(full_at),
                "measured_seconds": max(0, round(now - since)) if full_at is not None else 0,
                "progress": run["progress"],
                "restarts": restarted,
                "processes": [asdict(row) for row in rows(samples, since)],
            }
            output.write_text(json.dumps(measured, indent=1) + "\n")
            time.sleep(every_s)
        api.post(f"/runs/{run_id}/cancel")
    return measured


def markdown(measured: dict[str, Any]) -> str:
    """The table of docs/reliability.md."""
    progress = measured["progress"]
    of = measured["machine"]
    lines = [
        f"On {of['machine.processor']}, {of['machine.cores']} cores, load average {measured['load_average']:.1f}, at "
        f"{of['commit']}: {measured['measured_seconds'] / 60:.0f} minutes, which began {SETTLE_S:.0f} s after the ring "
        f"was full (at {measured['ring_full_after_s']} s); {progress['env_steps']:,} env steps and "
        f"{progress['updates']:,} updates in all.",
        "",
        "| Process | MB before | MB after | MB per hour | Descriptors | Threads |",
        "|---|---|---|---|---|---|",
    ]
    for values in measured["processes"]:
        row = Row(**values)
        slope = f"{row.mb_per_hour:+.2f} ± {row.error:.2f}"
        slope = slope if row.level else f"**{slope}**"
        opened, threads = (f"{before} → {after}" for before, after in (row.descriptors, row.threads))
        lines.append(f"| {row.process} | {row.mb_before:.1f} | {row.mb_after:.1f} | {slope} | {opened} | {threads} |")
    return "\n".join(lines) + "\n"


def again(output: Path) -> dict[str, Any]:
    """An earlier measurement with its table computed anew from its samples, where they are there."""
    measured: dict[str, Any] = json.loads(output.read_text())
    samples: dict[str, list[Sample]] = defaultdict(list)
    file = output.with_suffix(".samples.jsonl")
    for line in file.read_text().splitlines() if file.exists() else []:
        name, *values = json.loads(line)
        if samples[name] and samples[name][-1].pid != values[1]:
            samples[name].clear()
        samples[name].append(Sample(*values))
    since_s = measured["ring_full_after_s"] + SETTLE_S
    table = {row.process: asdict(row) for row in rows(samples, since_s)}
    kept = {values["process"]: values for values in measured["processes"]}
    measured["processes"] = [values for _, values in sorted({**kept, **table}.items())]
    measured["measured_seconds"] = round(measured["seconds"] - since_s)
    return measured


def update_page(page: Path, text: str) -> None:
    """Replaces what stands between the marks."""
    content = page.read_text()
    between = re.compile(f"({re.escape(_MARKS[0])}\n).*({re.escape(_MARKS[1])})", re.DOTALL)
    if not between.search(content):
        raise ValueError(f"{page} has no place for the table: {_MARKS[0]}")
    page.write_text(between.sub(lambda match: match[1] + text + match[2], content))


def main() -> int:
    """Returns the exit status: 1 if something grows, or had to be started again."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=80.0, help="of the whole run (default: %(default)s)")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between samples (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("bench/results/soak.json"), help="(default: %(default)s)")
    parser.add_argument("--home", type=Path, help="folder of the stack, which stays; default: a temporary one")
    parser.add_argument("--no-docs", action="store_true", help=f"leave {PAGE.name} as it is")
    parser.add_argument("--docs-only", action="store_true", help="write the page from an earlier --output, and end")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if arguments.docs_only:
        update_page(PAGE, markdown(again(arguments.output)))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        home = arguments.home or Path(temporary)
        measured = measure(home, 60 * arguments.minutes, arguments.every, arguments.output)
    text = markdown(measured)
    print(text)
    if not arguments.no_docs:
        update_page(PAGE, text)
    level = bool(measured["processes"]) and all(Row(**values).level for values in measured["processes"])
    return 0 if level and not measured["restarts"] else 1


if __name__ == "__main__":
    sys.exit(main())
