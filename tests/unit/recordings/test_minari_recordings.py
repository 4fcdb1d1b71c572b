"""Demonstrations as Minari datasets, written and read with Minari's own library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import minari
import numpy as np
import pytest
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer
from recorded_episodes import episodes, imported, same

from newt.errors import CorruptDataError, InvalidInputError, NotFoundError
from newt.recordings.mapping import RecordingMap
from newt.recordings.minari_datasets import write_minari
from newt.tasks.registry import get_task

# Minari likes its datasets to name authors and environments.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari")

T = 5
UNBOUNDED = spaces.Box(-np.inf, np.inf, (5,), np.float32)  # Of cartpole-balance, which has one action.


@pytest.fixture(autouse=True)
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Minari's own folder, for a test alone."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    return tmp_path / "datasets"


def recorded(observations: Any, observation_space: Any, actions: Any, action_space: Any, **more: Any) -> str:
    """A dataset of two equal episodes in Minari's folder; returns its id."""
    usual: dict[str, Any] = {
        "rewards": [1.0] * T,
        "terminations": [False] * T,
        "truncations": [False] * (T - 1) + [True],
    }
    buffers = [EpisodeBuffer(observations=observations, actions=actions, **{**usual, **more}) for _ in range(2)]
    minari.create_dataset_from_buffers(
        "lab/mine-v0", buffers, observation_space=observation_space, action_space=action_space
    )
    return "minari:lab/mine-v0"


def test_what_is_exported_is_imported_equal_and_minari_reads_it(tmp_path: Path, datasets: Path) -> None:
    made = [*episodes("walker-walk", 3), *episodes("walker-run", 2)]
    (datasets / "lab").mkdir(parents=True)
    assert write_minari(datasets / "lab" / "walks-v1", made) == 5
    assert same(imported("minari:lab/walks-v1"), made)
    assert same(imported(datasets / "lab" / "walks-v1"), made)
    dataset = minari.load_dataset("lab/walks-v1")
    assert (dataset.spec.dataset_id, dataset.total_episodes) == ("lab/walks-v1", 5)
    read = list(dataset.iterate_episodes())
    np.testing.assert_array_equal(read[1].observations, made[1].obs)
    assert read[1].terminations.tolist() == [False] * 6 + [True]
    write_minari(tmp_path / "other", made[:1])
    assert minari.MinariDataset(tmp_path / "other" / "data").spec.dataset_id == "newt/other-v0"
    with pytest.raises(InvalidInputError, match="export one task"):
        write_minari(tmp_path / "mixed", [*made, *episodes("reacher-easy", 1)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["datasets", "other"]


def test_bounds_come_from_the_action_space() -> None:
    actions = np.linspace(-3, 5, T, dtype=np.float32)[:, None]
    source = recorded(np.ones((T + 1, 5), np.float32), UNBOUNDED, actions, spaces.Box(-3, 5, (1,), np.float32))
    first, _ = imported(source, task="cartpole-balance")
    np.testing.assert_allclose(first.action[:, 0], np.linspace(-1, 1, T), atol=1e-6)
    assert (first.transitions, len(first.obs)) == (T, T + 1)


def test_nested_observations_are_flattened_in_the_order_of_their_space() -> None:
    space = spaces.Dict({"b": spaces.Box(-9, 9, (2,), np.float32), "a": spaces.Discrete(3, start=1)})
    values = {"b": np.arange(12, dtype=np.float32).reshape(6, 2) / 2, "a": np.array([1, 2, 3, 1, 2, 3])}
    source = recorded(values, space, np.zeros((T, 1), np.float32), spaces.Box(-1, 1, (1,), np.float32))
    first, _ = imported(source, task="cartpole-balance")
    np.testing.assert_array_equal(first.obs[1], spaces.flatten(space, {"b": values["b"][1], "a": 2}))
    renamed = RecordingMap.model_validate({"columns": {"obs": ["observations/b", "observations/a"]}})
    mapped, _ = imported(source, task="cartpole-balance", renamed=renamed)
    np.testing.assert_array_equal(mapped.obs[1], [1.0, 1.5, 0.0, 1.0, 0.0])


def test_choices_and_successes() -> None:
    push = get_task("mw-push")
    space = spaces.Box(-np.inf, np.inf, (push.obs_dim,), np.float32)
    choices = np.array([5, 6, 7, 8, 5])
    success = np.array([False] * T + [True])
    source = recorded(
        np.ones((T + 1, push.obs_dim), np.float32),
        space,
        choices,
        spaces.Discrete(push.action_dim, start=5),
        infos={"success": success},
    )
    first, _ = imported(source, task="mw-push")
    assert first.success == 1
    np.testing.assert_array_equal(first.action.argmax(1), choices - 5)


def test_what_makes_no_sense_is_refused(tmp_path: Path, datasets: Path) -> None:
    observations = np.ones((T + 1, 5), np.float32)
    observations[2, 4] = np.nan
    source = recorded(observations, UNBOUNDED, np.zeros((T, 1), np.float32), spaces.Box(-1, 1, (1,), np.float32))
    with pytest.raises(InvalidInputError, match=r"lab/mine-v0: episode 0: obs: got nan in step 2, column 4"):
        imported(source, task="cartpole-balance")
    with pytest.raises(InvalidInputError, match=r"action: got 1 columns, expected 6 of walker-walk"):
        imported(source, task="walker-walk")
    with pytest.raises(InvalidInputError, match=r"unknown task 'mine-v0'"):
        imported(source)
    with pytest.raises(NotFoundError, match="minari download"):
        imported("minari:lab/none-v0")
    data = datasets / "lab" / "mine-v0" / "data"
    with h5py.File(data / "main_data.hdf5", "a") as file:
        del file["episode_1"]
        file["episode_0/observations"][2, 4] = 0
    with pytest.raises(CorruptDataError, match=r"lab/mine-v0: damaged or cut off"):
        imported(source, task="cartpole-balance")
    (data / "metadata.json").write_text("{")
    with pytest.raises(CorruptDataError):
        imported(source)


def test_no_environment_is_made_to_ask_for_its_spaces(datasets: Path) -> None:
    recorded(
        np.ones((T + 1, 5), np.float32), UNBOUNDED, np.zeros((T, 1), np.float32), spaces.Box(-1, 1, (1,), np.float32)
    )
    (datasets / "lab" / "mine-v0" / "data" / "metadata.json").write_text('{"action_space": "{}"}')
    with pytest.raises(InvalidInputError, match="of its two spaces"):
        imported("minari:lab/mine-v0")
