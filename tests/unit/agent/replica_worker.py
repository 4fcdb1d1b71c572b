"""One training process, started by torchrun: `replica_worker.py <scenario> <folder>`."""

import os
import signal
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import torch
from small_agents import build_batch, build_model

from newt.agent import Batch, Learner, Ranks, TrainConfig, process_group
from newt.agent.distributed import SOLO, PeerLostError

UPDATES = 4  # of each phase
# A low limit, so that clipping acts; a high scale rate, so that the value scale moves.
CONFIG = TrainConfig(grad_clip_norm=0.5, ema_rate=0.1, lr=1e-3)


def columns(batch: Batch, part: slice) -> Batch:
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    cut = {n: v[part] if n == "task" else v[:, part] for n, v in values.items() if v is not None}
    return replace(batch, **cut)


def train(learner: Learner, ranks: Ranks, pretrain: int = UPDATES, online: int = UPDATES) -> list[dict[str, float]]:
    history = []
    for index in range(pretrain + online):
        whole = build_batch(learner.model, rows=12, seed=100 + index)
        whole = replace(whole, reward=200 * whole.reward)
        batch = columns(whole, ranks.columns(12 // ranks.world))
        update = learner.pretrain_update if index < pretrain else learner.rl_update
        history.append({name: float(value) for name, value in update(batch).items()})
    return history


def equal(ranks: Ranks, folder: Path) -> None:
    # Other initial weights, optimiser state, scale and generator on every process: rank 0's must win.
    learner = Learner(build_model(seed=ranks.rank), CONFIG, seed=ranks.rank, ranks=ranks)
    if ranks.first:
        learner.ranks = SOLO
        train(learner, SOLO, pretrain=1, online=1)
        learner.ranks = ranks
    learner.equalise()
    history = train(learner, ranks)
    learner.require_equal()
    torch.save({"state": learner.state_dict(), "history": history}, folder / f"rank-{ranks.rank}.pt")
    with torch.no_grad():
        next(learner.model.policy_head.parameters()).view(-1)[ranks.rank] += 1e-6
    try:
        learner.require_equal()
    except RuntimeError as error:
        (folder / f"rank-{ranks.rank}.txt").write_text(str(error))


def lose(ranks: Ranks, folder: Path, sign: signal.Signals) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun sends it to those who are left
    learner = Learner(build_model(), CONFIG, ranks=ranks)
    train(learner, ranks, 1, 1)
    if ranks.rank == 1:
        (folder / "pid").write_text(str(os.getpid()))
        os.kill(os.getpid(), sign)
    started = time.monotonic()
    try:
        train(learner, ranks, 1, 0)
    except PeerLostError as error:
        (folder / f"rank-{ranks.rank}.txt").write_text(f"{time.monotonic() - started}\n{error}")
        raise


def main() -> None:
    scenario, folder = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(1)
    with process_group("cpu", timeout_s=3.0 if scenario == "hang" else 60.0) as ranks:
        if scenario == "equal":
            equal(ranks, folder)
        else:
            lose(ranks, folder, {"die": signal.SIGKILL, "hang": signal.SIGSTOP}[scenario])


if __name__ == "__main__":
    main()
