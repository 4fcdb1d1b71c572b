"""Demonstrations in HDF5: robomimic's layout, ManiSkill's, and damage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from recorded_episodes import imported

from newt.errors import CorruptDataError, InvalidInputError, NotFoundError, UnavailableError
from newt.recordings.mapping import RecordingMap
from newt.tasks.registry import get_task

WALKER = get_task("walker-walk")
T, O, A = 5, WALKER.obs_dim, WALKER.action_dim  # noqa: E741
JOINED = RecordingMap.model_validate(
    {"columns": {"obs": ["obs/eef", "obs/object"], "next_obs": ["next_obs/eef", "next_obs/object"]}}
)


def robomimic(path: Path, **changes: Any) -> Path:
    """Eleven demonstrations of 5 steps, as robomimic lays them out; changes are arrays of demo_3, None removes one."""
    random = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = '{"env_name": "Lift"}'
        for i in range(11):
            states = random.standard_normal((T + 1, O))
            arrays: dict[str, Any] = {
                "actions": random.uniform(-1, 1, (T, A)),
                "rewards": np.full(T, 1 + i / 100),
                "dones": np.arange(T) == T - 1,
                "obs/eef": states[:-1, :7],
                "obs/object": states[:-1, 7:],
                "next_obs/eef": states[1:, :7],
                "next_obs/object": states[1:, 7:],
            }
            for name, values in {**arrays, **(changes if i == 3 else {})}.items():
                if values is not None:
                    data[f"demo_{i}/{name}"] = values
    return path


def test_robomimic_columns_are_joined_in_the_order_of_the_map(tmp_path: Path) -> None:
    path = robomimic(tmp_path / "lift.hdf5")
    found = imported(path, task="walker-walk", renamed=JOINED)
    assert [episode.reward[0] for episode in found] == [np.float32(1 + i / 100) for i in range(11)]  # 2 before 10
    with h5py.File(path) as file:
        demo = file["data/demo_10"]
        obs = np.concatenate([demo["obs/eef"][()], demo["obs/object"][()]], axis=1)
        last = np.concatenate([demo["next_obs/eef"][-1], demo["next_obs/object"][-1]])
        np.testing.assert_array_equal(found[10].obs, np.float32([*obs, last]))
        np.testing.assert_array_equal(found[10].action, np.float32(demo["actions"][()]))


def test_trajectories_at_the_top_with_their_last_observation(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    with h5py.File(tmp_path / "mine.h5", "w") as file:
        file.attrs["task"] = "mw-push"
        push = get_task("mw-push")
        for i in range(3):
            group = file.create_group(f"traj_{i}")
            group["obs"] = random.standard_normal((T + 1, push.obs_dim))
            group["actions"] = np.zeros((T, push.action_dim))
            group["rewards"] = np.ones(T)
            group["success"] = np.arange(T) >= i + 2  # The last one never succeeds.
            group["terminated"] = np.arange(T) == T - 1
    found = imported(tmp_path / "mine.h5")
    assert [(e.task, e.transitions, e.success, e.terminated) for e in found] == [("mw-push", T, 1.0, True)] * 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"obs/eef": np.zeros((T, 3))}, r"next_obs: got float64.24., expected float64.20. as obs has"),
        ({"obs/eef": np.full((T, 7), np.nan)}, "obs: got nan in step 0, column 0, expected finite"),
        ({"obs/eef": np.zeros((T - 1, 7))}, r"obs: obs/eef, obs/object have \[4, 5\] rows"),
        ({"obs/eef": None}, "obs: no such column, expected obs/eef; .*there are .*obs/object"),
        ({"rewards": np.ones(T - 1)}, "reward: got float64.4., expected one number for each of 5 actions"),
        ({"actions": np.ones((0, A)), "rewards": np.ones(0)}, "obs: got 5 rows for 0 actions"),
        ({"rewards": 1.0}, "rewards: got one value, expected a row for each step"),
    ],
)
def test_what_makes_no_sense_is_refused_with_file_episode_and_field(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = robomimic(tmp_path / "lift.hdf5", **changes)
    with pytest.raises(InvalidInputError, match=rf"lift\.hdf5: /?data/demo_3.*{message}"):
        imported(path, task="walker-walk", renamed=JOINED)


def test_a_group_of_observations_must_be_ordered_by_the_user(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidInputError, match=r"data/demo_0: obs: got a group of eef, object; say which, and in which order"
    ):
        imported(robomimic(tmp_path / "lift.hdf5"), task="walker-walk")


def test_files_that_are_cut_off_or_none_at_all(tmp_path: Path) -> None:
    path = robomimic(tmp_path / "lift.hdf5")
    whole = path.read_bytes()
    for length in (0, 100, len(whole) // 2):
        path.write_bytes(whole[:length])
        with pytest.raises(CorruptDataError, match=r"lift\.hdf5: damaged or cut off"):
            imported(path, task="walker-walk", renamed=JOINED)
    with pytest.raises(NotFoundError):
        imported(tmp_path / "none.hdf5")
    with h5py.File(path, "w") as file:
        file["observations"] = np.zeros(3)
    with pytest.raises(InvalidInputError, match=r"expected a group for each episode.*observations"):
        imported(path, task="walker-walk")


def test_a_missing_library_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match=r"pip install 'newt\[hdf5\]'"):
        imported(robomimic(tmp_path / "lift.hdf5"))
