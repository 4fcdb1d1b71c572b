"""Runs the load and prints what an env step costs; see `python -m bench.load --help`."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from bench import agents, machine, processes
from bench.load.meters import Samples, Traffic, cpu_seconds, gauge
from bench.load.traffic import RUN, Group, Targets, Trainer
from newt import logs
from newt.agent.checkpoints import weights_to_bytes
from newt.agent.config import PlanConfig
from newt.client.buffers import BufferConfig
from newt.client.planner import PlannerClient
from newt.client.replay import ReplayClient
from newt.client.weights import publish
from newt.local import ports, redis_server
from newt.tasks.registry import Task, select_tasks

_MEASURED = "bench/results/load.json"


def split(tasks: list[Task], envs: int) -> list[list[Task]]:
    """Instances in two groups per domain, as a collector has them; tasks in turn until there are enough."""
    instances = [tasks[i % len(tasks)] for i in range(envs)]
    groups: list[list[Task]] = []
    for domain in dict.fromkeys(task.domain for task in tasks):
        mine = [task for task in instances if task.domain == domain]
        groups += [half for half in (mine[0::2], mine[1::2]) if half]
    return groups


def _wait_for_model(target: str) -> None:
    deadline = time.monotonic() + 60
    with PlannerClient(target) as planner:
        while not planner.models(timeout_s=60):
            if time.monotonic() > deadline:
                raise RuntimeError("the planner did not get the weights within 60 s")
            time.sleep(0.2)


def measure(arguments: argparse.Namespace, home: Path) -> dict[str, Any]:
    """Starts the services, lets the load run, reads the meters."""
    tasks = select_tasks([agents.TASK_SET])
    groups = split(tasks, arguments.envs)
    plan = PlanConfig(num_samples=arguments.samples, num_policy_trajectories=2, num_elites=4, iterations=1)
    redis = redis_server.start(home / "redis")
    metrics = ports.free_port()
    planner_env = {"TORCH_THREADS": "1", "DEVICE": "cpu", "METRICS_PORT": str(metrics)}
    try:
        with (
            processes.weights_hub() as hub,
            processes.running("services.planner", "newt.v1.PlannerService", {"HUB": hub, **planner_env}) as planner,
            processes.running("services.replay", "newt.v1.ReplayService", {"REDIS_URL": redis.url}) as replay,
            ReplayClient(replay.address) as client,
        ):
            weights = weights_to_bytes(agents.world_model(arguments.size))
            publish(hub, RUN, 1, weights, json.dumps(plan.to_dict()), timeout_s=60)
            _wait_for_model(planner.address)
            client.create_buffer(
                RUN,
                BufferConfig(
                    {task.name: (task.obs_dim, task.action_dim) for task in tasks},
                    capacity_rows=10_000_000,
                    updates_per_env_step=arguments.updates_per_env_step,
                    start_env_steps=0,
                    max_lead_updates=0,
                ),
            )
            traffic, stop = Traffic(), threading.Event()
            targets = Targets(planner.address, replay.address)
            table = {task.name: i for i, task in enumerate(tasks)}
            senders: list[Group | Trainer] = [
                Group(group, table, targets, traffic, stop, i) for i, group in enumerate(groups)
            ]
            senders.append(Trainer(targets, arguments.batch_size, traffic, stop))
            pids = {"planner": planner.pid, "replay": replay.pid, "redis": redis.process.pid, "generator": os.getpid()}

            def lead() -> float:
                counted = traffic.read()
                allowed: float = arguments.updates_per_env_step * counted.get("appended_steps", 0)
                return allowed - counted.get("batches", 0)

            reading = {"queued_rows": lambda: gauge(metrics, "newt_planner_queued_rows"), "batches_behind": lead}
            for sender in senders:
                sender.start()
            time.sleep(arguments.warm_up)
            cpu = {name: cpu_seconds(pid) for name, pid in pids.items()}
            before, start = traffic.read(), time.perf_counter()
            with Samples(reading) as samples:
                time.sleep(arguments.seconds)
            seconds = time.perf_counter() - start
            after = traffic.read()
            cpu = {name: cpu_seconds(pid) - cpu[name] for name, pid in pids.items()}
            buffer = client.get_buffer(RUN)
            stop.set()
            for sender in senders:
                sender.join()
    finally:
        redis.stop()
    counted = {name: value - before.get(name, 0) for name, value in after.items()}
    steps = counted["env_steps"]
    return {
        "machine": machine.describe(),
        "setting": {
            **{key: value for key, value in vars(arguments).items() if key != "output"},
            "groups": len(groups),
            "rows_per_request": round(arguments.envs / len(groups), 1),
        },
        "seconds": round(seconds, 1),
        "load_average": machine.load(),
        "env_steps": steps,
        "per_second": {
            "env_steps": steps / seconds,
            "plan_requests": counted["plan_requests"] / seconds,
            "replay_writes": counted.get("episodes", 0) / seconds,
            "batches": counted.get("batches", 0) / seconds,
        },
        "per_env_step": {
            "cpu_microseconds": {name: 1e6 * value / steps for name, value in cpu.items()},
            "bytes": {
                "simulators (message sizes)": counted["sim_bytes"] / steps,
                "planner": counted["plan_bytes"] / steps,
                # Episodes and batches come in lumps; each is set against the steps that it stands for.
                "episodes": counted.get("append_bytes", 0) / max(1, counted.get("appended_steps", 0)),
                "batches": counted.get("batch_bytes", 0)
                / max(1, counted.get("batches", 0))
                * arguments.updates_per_env_step,
                "kept in Redis": buffer.size_bytes / max(1, buffer.env_steps),
            },
            "batches": counted.get("batches", 0) / steps,
        },
        "batch_bytes": counted.get("batch_bytes", 0) / max(1, counted.get("batches", 0)),
        "plan_seconds": counted["plan_microseconds"] / counted["plan_requests"] / 1e6,
        "queue_seconds": counted["queue_microseconds"] / counted["plan_requests"] / 1e6,
        "queues": {
            name: {"mean": sum(values) / max(1, len(values)), "max": max(values, default=0.0)}
            for name, values in samples.values.items()
        },
    }


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    parser.add_argument("--envs", type=int, default=2000, help="env instances (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="measured time (default: %(default)s)")
    parser.add_argument("--warm-up", type=float, default=15.0, help="seconds before (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=1024, help="sequences of a batch (default: %(default)s)")
    parser.add_argument("--updates-per-env-step", type=float, default=0.075, help="(default: %(default)s)")
    parser.add_argument("--size", default="XS", help="model; small, since messages are measured (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=16, help="of one planning iteration (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path(_MEASURED), help="(default: %(default)s)")
    arguments = parser.parse_args()
    logs.configure("load", "ERROR")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as home:
        measured = measure(arguments, Path(home))
    text = json.dumps(measured, indent=1)
    arguments.output.write_text(text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
