"""Data-parallel training on real processes, started by torchrun, over gloo."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from replica_worker import CONFIG, PER_TASK, first_model, train

from newt.agent.config import ConfigError, TrainConfig
from newt.agent.distributed import SOLO, Ranks, process_group
from newt.agent.update import Updater

WORKER = Path(__file__).with_name("replica_worker.py")
ROOT = Path(__file__).parents[3]


def torchrun(scenario: str, folder: Path, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    # A rank that is stopped cannot react to SIGTERM; it is killed after this many seconds.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "2"}
    return subprocess.run(
        [*command, str(WORKER), scenario, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


def alone(config: TrainConfig) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    """What one process makes of the whole batches."""
    updater = Updater(first_model(config, 0), config, seed=0)
    train(updater, SOLO, pretrain=1, online=1)
    history = train(updater, SOLO)
    return updater.state_dict(), history


@pytest.mark.parametrize("config", [CONFIG, PER_TASK], ids=lambda config: config.value_scale)
def test_two_replicas_are_identical_and_equal_one_process_on_the_whole_batch(
    tmp_path: Path, config: TrainConfig
) -> None:
    done = torchrun(config.value_scale, tmp_path)
    assert done.returncode == 0, done.stderr
    ranks: list[Any] = [torch.load(tmp_path / f"rank-{rank}.pt", weights_only=True) for rank in range(2)]
    expected, history = alone(config)
    for name, value in expected.items():
        first = ranks[0]["state"][name]
        assert torch.equal(first, ranks[1]["state"][name]), name
        torch.testing.assert_close(first, value, rtol=1e-3, atol=2e-5, msg=lambda text, name=name: f"{name}: {text}")
    # The comparison must not hold for want of something to compare: clipping acted, the scale moved.
    assert all(metrics["grad_norm"] > CONFIG.grad_clip_norm for metrics in history)
    if config is CONFIG:
        assert float(expected["scale"]) > 1.001
    else:
        assert expected["scale_seen"].tolist() == [3 * 5] * 4  # of 5 online updates on 12 rows
        assert bool(expected["scale_recent"].any())
    for mine, whole in zip(ranks[0]["history"], history, strict=True):
        assert mine == pytest.approx(whole, rel=1e-3, abs=1e-4)
    assert ranks[0]["history"] == ranks[1]["history"]
    # At the end the worker changed one weight of rank 1 by 1e-6.
    for rank in range(2):
        assert "weights of ranks [1] differ from rank 0's" in (tmp_path / f"rank-{rank}.txt").read_text()


@pytest.mark.parametrize(
    ("scenario", "within_s"),
    # torchrun gives a stopped process half a minute before it kills it.
    [("die", 10.0), pytest.param("hang", 20.0, marks=pytest.mark.long)],
)
def test_a_lost_rank_ends_the_others_with_its_name(tmp_path: Path, scenario: str, within_s: float) -> None:
    done = torchrun(scenario, tmp_path)
    assert done.returncode != 0
    waited, message = (tmp_path / "rank-0.txt").read_text().split("\n", 1)
    assert float(waited) < within_s
    assert "no sign of life from rank 1" in message
    # Nobody is left behind, not even the stopped process.
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, signal.SIG_DFL)


def test_a_process_alone_needs_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with process_group("cpu") as ranks:
        assert (ranks.rank, ranks.world, ranks.first) == (0, 1, True)
        assert ranks.agree(3) == 3


def test_missing_variables_and_uneven_batches_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with (
        pytest.raises(ConfigError, match=r"RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT not set.*torchrun"),
        process_group(),
    ):
        pass
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
    with pytest.raises(ConfigError, match="expected cuda"), process_group("cuda:1"):
        pass
    with pytest.raises(ConfigError, match=r"replay\.batch_size 10 cannot be split evenly over 4"):
        Ranks(rank=1, world=4).share(10, "replay.batch_size")
