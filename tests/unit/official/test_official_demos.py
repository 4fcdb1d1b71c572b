"""Published demonstration files to episodes and back."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published_files import demo_columns, differences, on_cuda, rewrite, save_demos, tensordict_library
from torch import Tensor

from newt.errors import InvalidInputError
from newt.official.demos import read_demos, write_demos
from newt.tasks.registry import get_task

WALKER = get_task("walker-walk")
DIMS = (WALKER.obs_dim, WALKER.action_dim)


def load_as_the_library_does(path: Path) -> dict[str, Any]:
    with tensordict_library():
        loaded = torch.load(path, weights_only=False)
    assert type(loaded).__module__ == "tensordict._td"
    state: dict[str, Any] = loaded.state
    return state


def exact(columns: dict[str, Tensor]) -> dict[str, Tensor]:
    """Bits instead of numbers, since NaN is not equal to itself."""
    return {n: t.view(torch.int32) if t.dtype == torch.float32 else t for n, t in columns.items()}


def test_rows_become_transitions(tmp_path: Path) -> None:
    columns = demo_columns(3, 7, *DIMS)
    save_demos(tmp_path / "walker-walk.pt", columns)
    episodes = read_demos(tmp_path / "walker-walk.pt", WALKER)
    assert len(episodes) == 3
    second = episodes[1]
    # Row t of the file holds o_t, and the action and reward that led to it.
    assert np.array_equal(second.obs, columns["obs"][8:16, :24])
    assert np.array_equal(second.action, columns["action"][9:16, :6])
    assert np.array_equal(second.reward, columns["reward"][9:16])
    assert (second.task, second.terminated, second.image) == ("walker-walk", False, None)
    assert np.isnan(second.success)
    assert len({episode.episode_id for episode in episodes}) == 3
    again = read_demos(tmp_path / "walker-walk.pt", WALKER)
    assert [e.episode_id for e in again] == [e.episode_id for e in episodes]


@pytest.mark.parametrize("feat", [False, True])
def test_a_file_comes_back_equal(feat: bool, tmp_path: Path) -> None:
    columns = demo_columns(4, 5, *DIMS, value=False, feat=feat)
    source, again = tmp_path / "walker-walk.pt", tmp_path / "again.pt"
    save_demos(source, columns)
    write_demos(again, read_demos(source, WALKER))
    state = load_as_the_library_does(again)
    assert differences(exact(columns), exact(state.pop("_tensordict"))) == []
    original = load_as_the_library_does(source)
    del original["_tensordict"]
    assert state == original

    def entry(path: Path) -> bytes:
        with zipfile.ZipFile(path) as archive:
            return archive.read(next(n for n in archive.namelist() if n.endswith("data.pkl")))

    assert entry(again) == entry(source)


def test_a_file_written_here_loads_with_tensordict(tmp_path: Path) -> None:
    tensordict = pytest.importorskip("tensordict")
    columns = demo_columns(2, 5, *DIMS, value=False)
    save_demos(tmp_path / "walker-walk.pt", columns)
    write_demos(tmp_path / "again.pt", read_demos(tmp_path / "walker-walk.pt", WALKER))
    loaded = torch.load(tmp_path / "again.pt", weights_only=False)
    assert isinstance(loaded, tensordict.TensorDict)
    assert loaded.batch_size == (12,)
    assert differences(exact(columns), exact({name: loaded[name] for name in columns})) == []


def test_episodes_of_different_lengths_and_ends_round_trip(tmp_path: Path) -> None:
    save_demos(tmp_path / "walker-walk.pt", demo_columns(2, 6, *DIMS))
    whole, other = read_demos(tmp_path / "walker-walk.pt", WALKER)
    short = replace(other, obs=other.obs[:3], action=other.action[:2], reward=other.reward[:2], terminated=True)
    write_demos(tmp_path / "again.pt", [short, whole])
    back = read_demos(tmp_path / "again.pt", WALKER)
    assert [(len(e.reward), e.terminated) for e in back] == [(2, True), (6, False)]
    assert np.array_equal(back[0].obs, short.obs)


def test_tensors_from_a_gpu_come_to_the_cpu(tmp_path: Path) -> None:
    columns = demo_columns(2, 3, *DIMS)
    save_demos(tmp_path / "cpu.pt", columns)
    rewrite(tmp_path / "cpu.pt", tmp_path / "cuda.pt", data_pkl=on_cuda)
    for a, b in zip(read_demos(tmp_path / "cpu.pt", WALKER), read_demos(tmp_path / "cuda.pt", WALKER), strict=True):
        assert a.episode_id == b.episode_id
        assert np.array_equal(a.obs, b.obs)


def test_only_the_first_20_of_a_maniskill_task_are_used(tmp_path: Path) -> None:
    task = get_task("ms-ant-run")
    save_demos(tmp_path / "ms.pt", demo_columns(23, 2, task.obs_dim, task.action_dim))
    first = read_demos(tmp_path / "ms.pt", task)
    everything = read_demos(tmp_path / "ms.pt", task, maniskill_limit=None)
    assert (len(first), len(everything)) == (20, 23)
    assert [e.episode_id for e in first] == [e.episode_id for e in everything[:20]]
    save_demos(tmp_path / "walker.pt", demo_columns(23, 2, *DIMS))
    assert len(read_demos(tmp_path / "walker.pt", WALKER)) == 23


def test_files_need_not_have_the_same_columns(tmp_path: Path) -> None:
    with_everything = demo_columns(1, 3, *DIMS, feat=True)
    with_everything["feat-stacked"] = torch.zeros(4, 768 * 3)
    save_demos(tmp_path / "a.pt", with_everything)
    save_demos(tmp_path / "b.pt", demo_columns(1, 3, *DIMS, value=False))
    (a,), (b,) = read_demos(tmp_path / "a.pt", WALKER), read_demos(tmp_path / "b.pt", WALKER)
    assert a.image is not None
    assert np.array_equal(a.image, with_everything["feat"])
    assert b.image is None
    (without,) = read_demos(tmp_path / "a.pt", WALKER, images=False)
    assert without.image is None
    with pytest.raises(InvalidInputError, match="equal widths"):
        write_demos(tmp_path / "mixed.pt", [a, b])


def changed(name: str, rows: Any, value: Any) -> Any:
    def change(columns: dict[str, Tensor]) -> None:
        columns[name] = columns[name].clone()
        columns[name][rows] = value

    return change


def removed(name: str) -> Any:
    return lambda columns: columns.pop(name)


def converted(name: str, convert: Any) -> Any:
    return lambda columns: columns.update({name: convert(columns[name])})


NAN = float("nan")
WRONG = {
    "another task": (
        changed("obs", (2, 24), 0.5),
        "obs: expected zeros behind the 24 entries of walker-walk.* entry 25",
    ),
    "action of another task": (changed("action", (2, 6), 0.5), "action: expected zeros behind the 6 entries"),
    "no NaN in front": (changed("reward", 0, 0.0), "NaN as action and reward in the first row"),
    "half a NaN row": (changed("action", (4, slice(6, None)), 0.0), "NaN as action and reward in the first row"),
    "NaN observation": (changed("obs", (1, 3), NAN), "obs: expected finite"),
    "NaN action": (changed("action", 1, NAN), "action: expected finite"),
    "infinite reward": (changed("reward", 5, float("inf")), "reward: expected finite"),
    "NaN feature": (changed("feat", (5, 700), NAN), "feat: expected finite"),
    "ids from 1": (converted("episode", lambda t: t + 1), "ids 0, 1, 2"),
    "an id left out": (converted("episode", lambda t: t * 2), "ids 0, 1, 2"),
    "mixed episodes": (converted("episode", lambda t: t[torch.tensor([0, 4, 1, 5, 2, 6, 3, 7])]), "ids 0, 1, 2"),
    "lone row": (changed("episode", 7, 2), "at least 2 consecutive rows"),
    "end in the middle": (changed("terminated", 1, True), "terminated: expected true in the last row"),
    "no reward": (removed("reward"), r"reward: expected torch.float32\[8\], got nothing; the file has obs, action"),
    "double": (converted("obs", Tensor.double), r"obs: expected torch.float32\[8, 128\], got torch.float64"),
    "narrow": (converted("obs", lambda t: t[:, :24]), r"expected torch.float32\[8, 128\], got torch.float32\[8, 24\]"),
    "short": (converted("action", lambda t: t[:5]), r"got torch.float32\[5, 16\]"),
    "int ids": (converted("episode", Tensor.int), "episode: expected torch.int64"),
    "narrow features": (converted("feat", lambda t: t[:, :9]), r"feat: expected torch.float32\[8, 768\]"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_refused_with_what_was_expected(name: str, tmp_path: Path) -> None:
    change, message = WRONG[name]
    columns = demo_columns(2, 3, *DIMS, feat=True)
    change(columns)
    save_demos(tmp_path / "wrong.pt", columns)
    with pytest.raises(InvalidInputError, match=message) as refused:
        read_demos(tmp_path / "wrong.pt", WALKER)
    assert "wrong.pt" in str(refused.value)


def test_what_cannot_be_written_is_refused_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "walker-walk.pt"
    save_demos(path, demo_columns(2, 3, *DIMS))
    old = path.read_bytes()
    good, other = read_demos(path, WALKER)
    bad_obs = good.obs.copy()
    bad_obs[0, 0] = np.nan
    for episodes, message in (
        ([], "at least one"),
        ([good, replace(other, task="walker-run")], "one task"),
        ([replace(good, obs=np.zeros((4, 129), np.float32))], "at most 128 obs"),
        ([replace(good, obs=good.obs[:3])], r"T\+1 observations"),
        ([replace(good, obs=bad_obs)], "all finite"),
        ([replace(good, image=np.zeros((4, 9), np.float32))], "768 image"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            write_demos(path, episodes)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]
