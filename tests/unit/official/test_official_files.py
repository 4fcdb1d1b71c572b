"""Hostile, damaged and foreign files: refused by name, nothing executed."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published_files import SMALL, demo_columns, multitask, rewrite, save_demos, tensordict_library

from newt.agent.checkpoints import save_checkpoint
from newt.errors import CorruptDataError, InvalidInputError, NotFoundError
from newt.official import pickled
from newt.official.checkpoints import parse_official, read_official
from newt.official.demos import read_demos
from newt.official.summary import open_checkpoint, summarise
from newt.tasks.registry import get_task

Readers = pytest.mark.parametrize(
    "read", [parse_official, lambda path: read_demos(path, get_task("walker-walk"))], ids=["checkpoint", "demos"]
)
Read = Callable[[Path], Any]


class Calls:
    """Pickles to a call of any function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@Readers
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_file_that_would_run_a_command_is_refused_and_runs_nothing(read: Read, protocol: int, tmp_path: Path) -> None:
    marker, path = tmp_path / "executed", tmp_path / "walker-walk.pt"
    evil = Calls(os.system, f"touch {marker}")
    torch.save({"model": evil, "optim": {}, "pi_optim": {}, "scale": {}}, path, pickle_protocol=protocol)
    with pytest.raises(InvalidInputError, match=r"posix\.system|STACK_GLOBAL") as refused:
        read(path)
    assert "nothing was executed" in str(refused.value)
    assert not marker.exists()
    torch.load(path, weights_only=False)  # the file was a working attack
    assert marker.exists()


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Calls(eval, "1"), r"__builtin__\.eval"),
        (Calls(getattr, "", "join"), r"__builtin__\.getattr"),
        (np.float64(1), "numpy"),
        (torch.nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
        (torch.zeros(3).to_sparse(), "_rebuild_sparse_tensor"),
    ],
)
def test_everything_but_tensors_is_refused_by_name(value: object, name: str, tmp_path: Path) -> None:
    torch.save({"model": value}, tmp_path / "file.pt")
    with pytest.raises(InvalidInputError, match=name):
        parse_official(tmp_path / "file.pt")


def test_a_checkpoint_may_not_name_tensordicts(tmp_path: Path) -> None:
    save_demos(tmp_path / "walker-walk.pt", demo_columns(1, 3, 24, 6))
    with pytest.raises(InvalidInputError, match=r"tensordict\._td\.TensorDict"):
        parse_official(tmp_path / "walker-walk.pt")


def test_a_stand_in_cannot_be_built_from_anything_else(tmp_path: Path) -> None:
    with tensordict_library() as TensorDict:
        make = TensorDict({}).__reduce__()[0]
        torch.save(Calls(make, TensorDict, [1]), tmp_path / "file.pt")
    with pytest.raises(CorruptDataError, match="cannot be rebuilt"):
        pickled.load(tmp_path / "file.pt", tensordict=True)


def test_a_tensor_larger_than_its_bytes_is_refused(tmp_path: Path) -> None:
    torch.save({"model": {"_action_masks": torch.zeros(1).expand(10**12, 16)}}, tmp_path / "huge.pt")
    with pytest.raises(InvalidInputError, match=r"\[1000000000000, 16\] has fewer numbers"):
        parse_official(tmp_path / "huge.pt")


def test_containers_that_hold_themselves_do_not_trap_the_reader(tmp_path: Path) -> None:
    loop: dict[str, Any] = {}
    loop["model"] = loop
    tower: list[Any] = [torch.zeros(1)]
    for _ in range(60):
        tower = [tower, tower]  # 2 ** 60 ways to the top
    for content in (loop, {"model": tower, "optim": {}, "pi_optim": {}, "scale": {}}):
        torch.save(content, tmp_path / "file.pt")
        with pytest.raises(InvalidInputError, match="expected"):
            parse_official(tmp_path / "file.pt")


def test_parameters_are_read_as_tensors(tmp_path: Path) -> None:
    content = multitask(SMALL).content
    torch.save(content, tmp_path / "tensors.pt")
    content["model"] = {name: torch.nn.Parameter(tensor) for name, tensor in content["model"].items()}
    torch.save(content, tmp_path / "parameters.pt")
    a, b = read_official(tmp_path / "tensors.pt"), read_official(tmp_path / "parameters.pt")
    assert not any(tensor.requires_grad for tensor in b.state.values())
    assert all(torch.equal(tensor, b.state[name]) for name, tensor in a.state.items())


def test_compressed_archives_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}, 2))
        archive.writestr("a/data/0", bytes(10**7))
    with pytest.raises(InvalidInputError, match="2 compressed entries"):
        parse_official(tmp_path / "bomb.pt")


@Readers
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.9999])
def test_a_file_cut_short_is_refused(read: Read, share: float, tmp_path: Path) -> None:
    path = tmp_path / "walker-walk.pt"
    save_demos(path, demo_columns(2, 5, 24, 6))
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(CorruptDataError, match="cut short or damaged"):
        read(path)


def test_one_changed_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "agent.pt"
    torch.save(multitask(SMALL, steps=0).content, path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptDataError, match="checksum"):
        parse_official(path)


def test_a_pickle_that_is_none_is_refused(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "good.pt")
    rewrite(tmp_path / "good.pt", tmp_path / "bad.pt", data_pkl=lambda data: b"\xff" + data)
    with pytest.raises(CorruptDataError, match="not a pickle"):
        parse_official(tmp_path / "bad.pt")


@pytest.mark.filterwarnings("ignore")  # torch's, about what the mutations have become
def test_no_mutation_of_a_pickle_gets_past_the_reader(tmp_path: Path) -> None:
    """Whatever a file's pickle has become, reading it ends in one of our errors, or well."""
    good, bad = tmp_path / "good.pt", tmp_path / "bad.pt"
    save_demos(good, demo_columns(2, 3, 24, 6))
    refusals = []
    for seed in range(150):
        random = np.random.default_rng(seed)

        def mutated(data: bytes, random: np.random.Generator = random) -> bytes:
            changed = bytearray(data)
            for position in random.integers(len(data), size=random.integers(1, 4)):
                changed[position : position + random.integers(3)] = random.bytes(random.integers(1, 3))
            return bytes(changed)

        rewrite(good, bad, data_pkl=mutated)
        try:
            read_demos(bad, get_task("walker-walk"))
        except (CorruptDataError, InvalidInputError) as error:
            refusals.append(str(error))
    assert len(refusals) > 75
    assert all("bad.pt" in refusal for refusal in refusals)


def foreign_zip() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(3))
    return buffer.getvalue()


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@Readers
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "starts with b''"),
        (b"task,reward\n1,2\n", "starts with b'task'"),
        (pickle.dumps({"model": {}}), "expected a zip archive written by torch.save"),
        (foreign_zip(), "one data.pkl, got a zip file with 0 of them"),
        (saved([torch.zeros(2)]), "got (a )?list"),
        (saved({"weights": 3}), "got (weights|a dict)"),
        (saved({"weight": torch.zeros(3)}), "among 1 tensors|got a dict"),
    ],
)
def test_foreign_files_are_refused_with_what_was_expected(
    read: Read, data: bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "walker-walk.pt"
    path.write_bytes(data)
    with pytest.raises(InvalidInputError, match=message) as refused:
        read(path)
    assert "expected" in str(refused.value)


@Readers
def test_a_missing_file_is_named(read: Read, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"absent\.pt: no such file"):
        read(tmp_path / "absent.pt")


def test_the_two_checkpoint_formats_are_told_apart(tmp_path: Path) -> None:
    torch.save(multitask(SMALL).content, tmp_path / "theirs.pt")
    checkpoint = read_official(tmp_path / "theirs.pt")
    save_checkpoint(tmp_path / "ours", checkpoint.updater(), {"env_steps": 70})
    theirs, ours = summarise(tmp_path / "theirs.pt"), summarise(tmp_path / "ours")
    assert (theirs.format, ours.format) == ("published", "newt")
    assert (theirs.env_steps, ours.env_steps) == (None, 70)
    assert theirs.tasks == ours.tasks
    assert len(ours.tasks) == 200
    assert (
        (theirs.config, theirs.updates, theirs.scale)
        == (ours.config, ours.updates, ours.scale)
        == (
            checkpoint.model_config,
            2,
            3.25,
        )
    )
    # Counted in the file's tensors and in ours, where the five critics' are stacked.
    assert ours.stepped == theirs.stepped == (12 + 12 + 10 + 10 + 10, 10)
    with pytest.raises(InvalidInputError, match="newt checkpoints import"):
        open_checkpoint(tmp_path / "theirs.pt")
    with pytest.raises(InvalidInputError, match="zip archive"):
        parse_official(tmp_path / "ours")
    (tmp_path / "torn").write_bytes((tmp_path / "ours").read_bytes()[:1000])
    with pytest.raises(CorruptDataError):
        summarise(tmp_path / "torn")
