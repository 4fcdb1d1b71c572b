"""Every header that is not right is refused with the name of what is wrong, whatever it is; what is right is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_files import ANYTHING, changed, places, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load as unpack
from small_agents import build_model

from newt.agent.checkpoints import CheckpointError, load_checkpoint, save_checkpoint
from newt.agent.config import TrainConfig
from newt.agent.headers import read_header
from newt.agent.update import Updater


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("header") / "agent.safetensors"
    info = {"env_steps": 5, "updates": 0, "text_encoder": "", "spec": {"plan": {"horizon": 3}, "vision": None}}
    save_checkpoint(path, Updater(build_model(), TrainConfig()), info)
    return path


@pytest.fixture(scope="module")
def content(file: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    data = file.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return json.loads(header["__metadata__"]["newt"]), unpack(data)


@given(data=st.data())
@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_value_anywhere_is_read_or_refused(
    data: st.DataObject, content: tuple[dict[str, Any], dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    document, tensors = content
    where = data.draw(st.sampled_from(list(places(document))))
    path = write(tmp_path / "x", changed(document, where, data.draw(ANYTHING)), tensors)
    try:
        checkpoint = load_checkpoint(path)
    except CheckpointError as error:
        reason = str(error)
    else:
        reason, header = "", read_header(path)
        assert checkpoint.model().config == header.model_config
    assert len(reason) < 1000


def test_what_a_later_version_adds_is_left_aside(
    content: tuple[dict[str, Any], dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    document, tensors = content
    known = load_checkpoint(write(tmp_path / "known", document, tensors))
    for place in ((), ("model_config",), ("train_config",), ("tasks",), ("info",), ("info", "spec", "plan")):
        document = changed(document, (*place, "later"), {"a": 1})
    path = write(tmp_path / "later", document, tensors)
    later = load_checkpoint(path)
    assert (later.model_config, later.train_config) == (known.model_config, known.train_config)
    assert read_header(path).info["later"] == {"a": 1}


def test_a_later_format_is_named_in_one_line(
    content: tuple[dict[str, Any], dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    document, tensors = content
    path = write(tmp_path / "x", {"format": document["format"], "version": 2}, tensors)
    with pytest.raises(CheckpointError, match=r"x: it was written in format 2, .* up to 1: update newt$"):
        load_checkpoint(path)


DEEP = "[" * 20_000 + "]" * 20_000


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("", []),
        ("", None),
        ("", 7),
        ("", DEEP),
        ("format", None),
        ("version", "1"),
        ("version", True),
        ("train_config.warmup_updates", 10**400),
        ("train_config.horizon", 1.5),
        ("train_config.lr", float("inf")),
        ("train_config.value_percentiles", [1]),
        ("tasks", []),
        ("tasks.names", [1]),
        ("tasks.names", "reach"),
        ("tasks.names.0", "n" * 300),
        ("tasks.discounts.0", float("nan")),
        ("tasks.action_dims.0", 2**70),
        ("info", None),
        ("info", []),
        ("info.text_encoder", 5),
        ("info.updates", -1),
        ("info.spec", []),
        ("info.spec.plan", {"num_samples": 10**400}),
        ("info.spec.plan", {"iterations": "many"}),
        ("info.spec.vision", {"feature_dim": 0, "frames": 1}),
        ("model_config.size", 5),
        ("model_config.latent_dim", 8_000_000_000),
        ("model_config.encoder_layers", 1_000_000),
        ("model_config.vmax", float("inf")),
    ],
)
def test_the_field_is_named(
    content: tuple[dict[str, Any], dict[str, torch.Tensor]], tmp_path: Path, field: str, value: Any
) -> None:
    document, tensors = content
    where = tuple(int(part) if part.isdigit() else part for part in field.split(".") if part)
    path = write(tmp_path / "x", changed(document, where, value), tensors)
    for read in (load_checkpoint, read_header):
        with pytest.raises(CheckpointError, match=field.replace(".0", "").replace(".", r"\.") or "newt header"):
            read(path)


@pytest.mark.parametrize("field", ["format", "version", "model_config", "train_config", "tasks", "info"])
def test_a_missing_field_is_named(
    content: tuple[dict[str, Any], dict[str, torch.Tensor]], tmp_path: Path, field: str
) -> None:
    document, tensors = content
    path = write(tmp_path / "x", {name: value for name, value in document.items() if name != field}, tensors)
    with pytest.raises(CheckpointError, match=field):
        load_checkpoint(path)


WRONG_TENSORS = {
    "none at all": ({}, "table.embeddings"),
    "no weights": ({"table.embeddings": torch.zeros(4, 6)}, "lacks tensors"),
    "embeddings of another type": ({"table.embeddings": torch.zeros(4, 6, dtype=torch.float64)}, "table.embeddings"),
    "embeddings of another rank": ({"table.embeddings": torch.zeros(24)}, "table.embeddings"),
    "embeddings of another width": ({"table.embeddings": torch.zeros(3, 9)}, "table.embeddings"),
    "embeddings that are not finite": ({"table.embeddings": torch.full((4, 6), torch.nan)}, "finite"),
    "weights of another type": ({"model.encoder.layers.0.weight": torch.zeros(3, dtype=torch.int8)}, "encoder"),
    "a stranger": ({"x" * 500: torch.zeros(1)}, "unknown tensors"),
    "no generator": ({"rng": torch.zeros(5056, dtype=torch.uint8)}, "rng"),
    "half of the moments": ({"optim.main.encoder.layers.0.weight.step": torch.zeros(())}, "exp_avg"),
    "updates before the first": ({"updates": torch.tensor(-1)}, "updates"),
}


@pytest.mark.parametrize("case", WRONG_TENSORS)
def test_tensors_that_do_not_fit_are_refused(
    content: tuple[dict[str, Any], dict[str, torch.Tensor]], tmp_path: Path, case: str
) -> None:
    document, tensors = content
    changes, words = WRONG_TENSORS[case]
    keep = {} if case in ("none at all", "no weights") else tensors
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(write(tmp_path / "x", document, {**keep, **changes}))


@given(data=st.binary(max_size=200), start=st.integers(0, 400))
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bytes_in_the_wrong_place(file: Path, tmp_path: Path, data: bytes, start: int) -> None:
    path = tmp_path / "y"
    content = file.read_bytes()
    if content[start : start + len(data)] == data:
        return
    path.write_bytes(content[:start] + data + content[start + len(data) :])
    with pytest.raises(CheckpointError):
        load_checkpoint(path)
