"""Demonstrations as a plain npz: what is read, what is refused, and how it comes out again."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded_episodes import episodes, imported, same, shape_of

from newt.errors import CorruptDataError, InvalidInputError, NotFoundError
from newt.recordings.formats import open_recording
from newt.recordings.importing import Recordings
from newt.recordings.mapping import RecordingMap
from newt.recordings.npz import write_npz
from newt.tasks.registry import get_task
from newt.wire.episodes import Behaviour

WALKER = get_task("walker-walk")
O, A = WALKER.obs_dim, WALKER.action_dim  # noqa: E741


def arrays(**changes: Any) -> dict[str, Any]:
    """Three episodes of 4 steps, as somebody would record them; None leaves an array out."""
    random = np.random.default_rng(1)
    ends = np.arange(12) % 4 == 3
    usual = {
        "obs": random.standard_normal((12, O)),
        "action": random.uniform(-1, 1, (12, A)),
        "reward": np.ones(12),
        "terminated": np.zeros(12, np.bool_),
        "truncated": ends,
        "final_obs": random.standard_normal((3, O)),
        "task": np.array("walker-walk"),
    }
    return {name: values for name, values in {**usual, **changes}.items() if values is not None}


def saved(path: Path, **changes: Any) -> Path:
    np.savez(path, **arrays(**changes))
    return path


@pytest.mark.parametrize("images", [0, 5])
def test_what_is_exported_is_imported_equal(tmp_path: Path, images: int) -> None:
    made = episodes("walker-walk", 4, images=images)
    assert write_npz(tmp_path / "out.npz", made) == 4
    assert same(imported(tmp_path / "out.npz"), made)
    assert [path.name for path in tmp_path.iterdir()] == ["out.npz"]


def test_tasks_of_equal_widths_share_a_file_and_others_do_not(tmp_path: Path) -> None:
    made = [*episodes("walker-walk", 2), *episodes("walker-run", 2)]
    write_npz(tmp_path / "both.npz", made)
    assert same(imported(tmp_path / "both.npz"), made)
    with pytest.raises(InvalidInputError, match="export one task"):
        write_npz(tmp_path / "not.npz", [*made, *episodes("reacher-easy", 1)])
    assert [path.name for path in tmp_path.iterdir()] == ["both.npz"]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_plain_arrays_become_demonstrations(tmp_path: Path, save: Any) -> None:
    given = arrays()
    save(tmp_path / "mine.npz", **given)
    found = imported(tmp_path / "mine.npz")
    assert [episode.transitions for episode in found] == [4, 4, 4]
    assert [episode.behaviour for episode in found] == [Behaviour.EXPERT] * 3
    np.testing.assert_array_equal(found[1].obs, np.float32([*given["obs"][4:8], given["final_obs"][1]]))
    np.testing.assert_array_equal(found[1].action, np.float32(given["action"][4:8]))
    assert [e.episode_id for e in imported(tmp_path / "mine.npz")] == [e.episode_id for e in found]  # adds nothing
    assert len({episode.episode_id for episode in found}) == 3


def test_ends_by_number_next_observations_and_a_task_for_each_episode(tmp_path: Path) -> None:
    following = np.arange(12 * O, dtype=np.float32).reshape(12, O)
    path = saved(
        tmp_path / "a.npz",
        terminated=None,
        truncated=None,
        episode_ends=np.array([5, 12]),
        final_obs=None,
        next_obs=following,
        task=np.array(["walker-walk", "walker-run"]),
    )
    found = imported(path)
    assert [(e.task, e.transitions, e.terminated) for e in found] == [
        ("walker-walk", 5, False),
        ("walker-run", 7, False),
    ]
    np.testing.assert_array_equal(found[0].obs[-1], following[4])


def test_without_what_the_last_action_led_to_that_step_is_left_out(tmp_path: Path) -> None:
    ends = np.arange(12) % 4 == 3
    found = imported(saved(tmp_path / "a.npz", final_obs=None, terminated=ends, truncated=None))
    assert [(e.transitions, len(e.obs), e.terminated) for e in found] == [(3, 4, False)] * 3
    whole = imported(saved(tmp_path / "b.npz", terminated=ends, truncated=None))
    assert [(e.transitions, e.terminated) for e in whole] == [(4, True)] * 3


def test_a_map_names_columns_joins_them_and_gives_bounds(tmp_path: Path) -> None:
    given = arrays()
    position, speed = given["obs"][:, :14], given["obs"][:, 14:]
    path = saved(
        tmp_path / "walk.npz",
        obs=None,
        q=position,
        dq=speed,
        final_obs=None,
        u=given["action"] * 3 + 1,
        action=None,
        task=np.array("Walk, please"),
    )
    renamed = RecordingMap.model_validate(
        {
            "columns": {"obs": ["q", "dq"], "action": "u"},
            "actions": {"low": -2, "high": [4.0] * A},
            "tasks": {"Walk, please": "walker-walk"},
        }
    )
    (first, *_) = imported(path, renamed=renamed)
    np.testing.assert_array_equal(first.obs, np.float32(given["obs"][:4]))
    np.testing.assert_allclose(first.action, given["action"][:3], atol=1e-6)


def test_the_accept_rule_is_that_of_all_demonstrations(tmp_path: Path) -> None:
    rewards = np.repeat([1.0, 0.5, 1.2], 4)  # The second return lies below 0.75 times the median.
    path = saved(tmp_path / "a.npz", reward=rewards)
    assert [float(e.reward[0]) for e in imported(path)] == [1.0, pytest.approx(1.2)]
    kept = imported(path, take_all=True)
    assert [float(e.reward[0]) for e in kept] == [1.0, 0.5, pytest.approx(1.2)]
    assert {e.behaviour for e in kept} == {Behaviour.UNSPECIFIED}


def test_manipulation_must_succeed_and_the_file_must_tell(tmp_path: Path) -> None:
    push = get_task("mw-push")
    mine = {
        "obs": np.zeros((12, push.obs_dim)),
        "final_obs": np.zeros((3, push.obs_dim)),
        "action": np.zeros((12, push.action_dim)),
        "task": np.array("mw-push"),
    }
    found = imported(saved(tmp_path / "a.npz", **mine, success=np.array([True, False, True])))
    assert [e.success for e in found] == [1.0, 1.0]
    with pytest.raises(InvalidInputError, match=r"b\.npz: mw-push: none of 3 .* no success is told.*--all-episodes"):
        imported(saved(tmp_path / "b.npz", **mine))


def test_a_choice_becomes_the_largest_of_its_columns(tmp_path: Path) -> None:
    choices = np.arange(12) % A
    (first, *_) = imported(saved(tmp_path / "a.npz", action=choices))
    np.testing.assert_array_equal(first.action.argmax(1), choices[:4])
    with pytest.raises(InvalidInputError, match=f"action: got choice {A}, expected 0 to {A - 1}"):
        imported(saved(tmp_path / "b.npz", action=choices + 1))


def with_nan(name: str) -> dict[str, Any]:
    values = arrays()[name].copy()
    values.reshape(len(values), -1)[6, -1] = np.nan
    return {name: values}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"obs": np.zeros((12, 5)), "final_obs": np.zeros((3, 5))}, "obs: got 5 columns, expected 24 of walker-walk"),
        ({"action": np.zeros((12, 2))}, "action: got 2 columns, expected 6 of walker-walk"),
        (with_nan("obs"), "episode 1: obs: got nan in step 2, column 23, expected finite"),
        (with_nan("reward"), "episode 1: reward: got nan in step 2, expected finite"),
        ({"obs": np.full((12, O), 1e39)}, "obs: got 1e.39 in step 0, column 0, expected finite"),
        ({"action": np.full((12, A), 2.0)}, r"action: got 2 in step 0, column 0, expected all within \[-1, 1\]; .*low"),
        ({"reward": None}, "reward: no such column, expected one that is called reward or rewards"),
        ({"reward": np.ones(11)}, "reward: got 11 rows, expected more"),
        ({"reward": np.ones(13)}, "reward: got 13 rows, expected 12"),
        ({"final_obs": np.zeros((2, O))}, "final_obs: .*a row for each of 3 episodes"),
        ({"truncated": None, "terminated": None}, "episode_ends: nothing tells where episodes end"),
        ({"truncated": np.arange(12) % 5 == 4}, "the last of 12 steps ends no episode, so the file may be cut off"),
        ({"episode_ends": np.array([4, 4, 12])}, "episode_ends: expected growing whole numbers"),
        ({"episode_ends": np.array([5, 8, 12]), "terminated": np.arange(12) == 3}, "terminated: expected one flag"),
        ({"task": np.array("walker-wlak")}, "unknown task 'walker-wlak'.*did you mean walker-walk"),
        ({"task": None}, "unknown task 'file'.*--task"),
        ({"obs": np.full((12, O), "x")}, "obs: got <U.*, expected numbers"),
        ({"obs": np.asfortranarray(np.ones((12, O)))}, "obs: .*ascontiguousarray"),
    ],
)
def test_what_makes_no_sense_is_refused_with_file_field_and_remedy(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=rf"file\.npz: .*{message}"):
        imported(saved(tmp_path / "file.npz", **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"episode_id": np.array(["a", "b c", "d"])}, "episode 1: episode_id: got 'b c'"),
        ({"episode_id": np.array(["a", "b", "a"])}, "episode 2: episode_id: got 'a' again"),
        ({"score": np.array([1, np.nan, 1])}, "episode 1: score: got nan"),
        ({"success": np.array([1, 1, np.inf])}, "episode 2: success: got inf"),
        ({"behaviour": np.array([4, 77, 4])}, "episode 1: behaviour: got 77, expected one of .*4 .EXPERT"),
        ({"weights_versions": np.array([[1, 2], [1, 2], [2, 1]])}, "episode 2: weights_versions: got 2 and 1"),
        ({"seed": np.array([-1, 2, 3])}, "episode 0: seed: got -1"),
        ({"image_encoder": np.array(["", "dino", ""])}, "episode 1: image_encoder: got 'dino'"),
    ],
)
def test_what_replay_would_refuse_is_refused_before_anything_is_stored(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=rf"file\.npz: .*{message}"):
        imported(saved(tmp_path / "file.npz", **changes), take_all=True)


def test_another_task_than_the_files_is_refused_unless_it_is_renamed(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npz")
    with pytest.raises(InvalidInputError, match=r"the file says 'walker-walk', --task says 'walker-run'.*\[tasks\]"):
        imported(path, task="walker-run")
    renamed = RecordingMap(tasks={"walker-walk": "walker-run"})
    assert {e.task for e in imported(path, task="walker-run", renamed=renamed)} == {"walker-run"}
    assert {e.task for e in imported(saved(tmp_path / "walker-run.npz", task=None))} == {"walker-run"}


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"obs: got dtype object"):
        imported(saved(tmp_path / "a.npz", obs=np.array([{}] * 12, object)))


@pytest.mark.parametrize("keep", [0, 30, 3000, -40])
def test_damaged_files_are_told(tmp_path: Path, keep: int) -> None:
    path = saved(tmp_path / "a.npz")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CorruptDataError, match=r"a\.npz: damaged or cut off"):
        imported(path)


def test_a_changed_byte_is_told_before_anything_is_handed_out(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npz")
    data = bytearray(path.read_bytes())
    data[data.index(b"obs.npy") + 1000] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptDataError, match="damaged"):
        imported(path)
    with pytest.raises(NotFoundError, match=r"no file .*none\.npz"):
        imported(tmp_path / "none.npz")


def test_long_files_are_read_an_episode_at_a_time(tmp_path: Path) -> None:
    E, T = 60, 1000
    np.savez(
        tmp_path / "long.npz",
        obs=np.zeros((E * T, O), np.float32),
        action=np.zeros((E * T, A), np.float32),
        reward=np.ones(E * T, np.float32),
        episode_ends=np.arange(1, E + 1) * T,
        task="walker-walk",
    )
    size = (tmp_path / "long.npz").stat().st_size
    tracemalloc.start()
    try:
        found = sum(1 for _ in drained(tmp_path / "long.npz"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == E
    assert peak < size / 4


def drained(path: Path) -> Iterator[object]:
    recordings = Recordings([open_recording(str(path))], shape_of)
    recordings.judge()
    return recordings.episodes()
