"""Choosing a device and a precision, as far as a machine without a GPU can tell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from newt.agent import compilation, devices
from newt.agent.config import ConfigError


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    devices.set_precision("float32", torch.device("cpu"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("name", ["cuda", "cuda:1", "meta", "abacus"])
def test_a_device_that_does_not_compute_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^device {name}: .*; expected auto, cpu, or a GPU that torch can use$"):
        devices.working(name)
    assert devices.working("auto") == torch.device("cpu")


@pytest.mark.parametrize(("gpu", "device"), [(True, "cuda"), (False, "cpu")])
def test_auto_takes_the_gpu_that_is_there(monkeypatch: pytest.MonkeyPatch, gpu: bool, device: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2 if gpu else 0)
    assert devices.resolve("auto") == device
    assert devices.resolve("cuda:1") == "cuda:1"
    assert devices.unused_gpus(torch.device("cpu")) == (2 if gpu else 0)
    assert devices.unused_gpus(torch.device("cuda")) == 0


def test_a_gpu_that_is_not_used_is_warned_of_with_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Above all where torch's build is one for CPUs, to which a GPU is not there."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices, "_DEVICES", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    cpu = torch.device("cpu")
    (tmp_path / "nvidiactl").touch()
    assert devices.unused_warning(cpu, "X") is None
    (tmp_path / "nvidia0").touch()
    assert devices.unused_warning(cpu, "X") == (
        f"1 GPU of this machine is not used: torch {torch.__version__} needs a build for CUDA, or a newer driver"
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert devices.unused_warning(cpu, "X") is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices.unused_warning(cpu, "X") == "2 GPUs of this machine are not used: set X to auto or cuda"
    assert devices.unused_warning(torch.device("cuda"), "X") is None


@pytest.mark.parametrize(
    ("asked", "device", "in_force"),
    [
        ("auto", "cuda", "tf32"),
        ("tf32", "cuda", "tf32"),
        ("float32", "cuda", "float32"),
        ("auto", "cpu", "float32"),
        ("tf32", "cpu", "float32"),
        ("bfloat16", "cuda", "bfloat16"),
        ("bfloat16", "cpu", "bfloat16"),
    ],
)
def test_gpus_multiply_as_published_unless_told_otherwise(asked: devices.Precision, device: str, in_force: str) -> None:
    assert devices.set_precision(asked, torch.device(device)) == in_force
    assert torch.get_float32_matmul_precision() == ("high" if in_force == "tf32" else "highest")


def test_an_older_torch_compiles_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 2.13, torch.compile knows no limits of its own."""
    seen: dict[str, object] = {}

    def older(model: object, *, fullgraph: bool, dynamic: bool, backend: str) -> object:
        seen.update(fullgraph=fullgraph, dynamic=dynamic, backend=backend)
        return model

    monkeypatch.setattr(torch, "compile", older)
    with torch._dynamo.config.patch(recompile_limit=8):
        assert compilation._compile(max, "eager", dynamic=True) is max
        assert torch._dynamo.config.recompile_limit > 8
    assert seen == {"fullgraph": True, "dynamic": True, "backend": "eager"}
