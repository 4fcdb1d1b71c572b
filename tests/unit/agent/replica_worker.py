"""One training process, started by torchrun: `replica_worker.py <scenario> <folder>`."""

import os
import signal
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import torch
from small_agents import build_batch, build_model

from newt.agent.batch import UpdateBatch
from newt.agent.config import TrainConfig
from newt.agent.distributed import SOLO, PeerLostError, Ranks, process_group
from newt.agent.update import Updater
from newt.agent.world_model import WorldModel

UPDATES = 4  # of each phase
# A low limit, so that clipping acts; a high scale rate, so that the value scale moves.
CONFIG = TrainConfig(grad_clip_norm=0.5, ema_rate=0.1, lr=1e-3)
PER_TASK = replace(CONFIG, value_scale="per_task")


def first_model(config: TrainConfig, seed: int) -> WorldModel:
    """What is kept per task, all of it or nothing."""
    return build_model(seed=seed, obs_scaling="per_task" if config is PER_TASK else "none")


def columns(batch: UpdateBatch, part: slice) -> UpdateBatch:
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    cut = {n: v[part] if n == "task" else v[:, part] for n, v in values.items() if v is not None}
    return replace(batch, **cut)


def train(updater: Updater, ranks: Ranks, pretrain: int = UPDATES, online: int = UPDATES) -> list[dict[str, float]]:
    history = []
    for index in range(pretrain + online):
        whole = build_batch(updater.model, rows=12, seed=100 + index)
        whole = replace(whole, reward=200 * whole.reward)
        batch = columns(whole, ranks.columns(12 // ranks.world))
        update = updater.pretrain_update if index < pretrain else updater.rl_update
        history.append({name: float(value) for name, value in update(batch).items()})
    return history


def equal(ranks: Ranks, folder: Path, config: TrainConfig) -> None:
    # Other initial weights, optimiser state, scale and generator on every process: rank 0's must win.
    updater = Updater(first_model(config, ranks.rank), config, seed=ranks.rank, ranks=ranks)
    if ranks.first:
        updater.ranks = SOLO
        train(updater, SOLO, pretrain=1, online=1)
        updater.ranks = ranks
    updater.equalise()
    history = train(updater, ranks)
    updater.require_equal()
    torch.save({"state": updater.state_dict(), "history": history}, folder / f"rank-{ranks.rank}.pt")
    with torch.no_grad():
        next(updater.model.policy_head.parameters()).view(-1)[ranks.rank] += 1e-6
    try:
        updater.require_equal()
    except RuntimeError as error:
        (folder / f"rank-{ranks.rank}.txt").write_text(str(error))


def lose(ranks: Ranks, folder: Path, sign: signal.Signals) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun sends it to those who are left
    updater = Updater(build_model(), CONFIG, ranks=ranks)
    train(updater, ranks, 1, 1)
    if ranks.rank == 1:
        (folder / "pid").write_text(str(os.getpid()))
        os.kill(os.getpid(), sign)
    started = time.monotonic()
    try:
        train(updater, ranks, 1, 0)
    except PeerLostError as error:
        (folder / f"rank-{ranks.rank}.txt").write_text(f"{time.monotonic() - started}\n{error}")
        raise


def main() -> None:
    scenario, folder = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(1)
    with process_group("cpu", timeout_s=3.0 if scenario == "hang" else 60.0) as ranks:
        if scenario in ("shared", "per_task"):
            equal(ranks, folder, CONFIG if scenario == "shared" else PER_TASK)
        else:
            lose(ranks, folder, {"die": signal.SIGKILL, "hang": signal.SIGSTOP}[scenario])


if __name__ == "__main__":
    main()
