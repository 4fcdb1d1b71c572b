"""Demonstrations as LeRobot folders: written, read, and as LeRobot itself lays them out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from recorded_episodes import episodes, imported, same

from newt.errors import CorruptDataError, InvalidInputError
from newt.recordings import lerobot_writing
from newt.recordings.lerobot_writing import write_lerobot
from newt.recordings.mapping import RecordingMap
from newt.tasks.registry import get_task

PUSH = get_task("mw-push")
O, A = PUSH.obs_dim, PUSH.action_dim  # noqa: E741
LENGTHS = (4, 6)
TEXT = "Push the puck to the goal."
RENAMED = RecordingMap.model_validate(
    {
        "columns": {"obs": ["observation.state", "observation.environment_state"], "terminated": "next.done"},
        "tasks": {TEXT: "mw-push"},
    }
)


def theirs(folder: Path, columns: dict[str, Any] | None = None, info: dict[str, Any] | None = None) -> Path:
    """Two episodes of 4 and 6 frames, in the layout of LeRobot 0.4."""
    rows, random = sum(LENGTHS), np.random.default_rng(0)
    frames: dict[str, Any] = {
        "observation.state": random.standard_normal((rows, 4)).tolist(),
        "observation.environment_state": random.standard_normal((rows, O - 4)).tolist(),
        "action": random.uniform(-1, 1, (rows, A)).tolist(),
        "next.reward": np.ones(rows),
        "next.done": np.isin(np.arange(rows), np.cumsum(LENGTHS) - 1),
        "next.success": np.ones(rows, np.bool_),
        "episode_index": np.repeat([0, 1], LENGTHS),
        "task_index": np.zeros(rows, np.int64),
        **(columns or {}),
    }
    shapes = {"observation.state": 4, "observation.environment_state": O - 4, "action": A}
    features = {name: {"dtype": "float32", "shape": [shapes.get(name, 1)], "names": None} for name in frames}
    features["observation.images.top"] = {"dtype": "video", "shape": [480, 640, 3], "names": None}
    listed = {
        "episode_index": [0, 1],
        "tasks": [[TEXT], [TEXT]],
        "length": list(LENGTHS),
        "data/chunk_index": [0, 0],
        "data/file_index": [0, 0],
    }
    told = {
        "codebase_version": "v3.0",
        "total_episodes": 2,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "features": features,
        **(info or {}),
    }
    for place in ("data/chunk-000", "meta/episodes/chunk-000"):
        (folder / place).mkdir(parents=True)
    pq.write_table(pa.table(frames), folder / "data/chunk-000/file-000.parquet")
    pq.write_table(pa.table(listed), folder / "meta/episodes/chunk-000/file-000.parquet")
    (folder / "meta/info.json").write_text(json.dumps(told))
    return folder


def test_what_is_exported_is_imported_equal(tmp_path: Path) -> None:
    made = [*episodes("walker-walk", 3), *episodes("walker-run", 2)]
    assert write_lerobot(tmp_path / "out", made, 20.0) == 5
    assert same(imported(tmp_path / "out"), made)
    info = json.loads((tmp_path / "out/meta/info.json").read_text())
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (5, 34, 2)
    frames = pq.read_table(tmp_path / "out/data/chunk-000/file-000.parquet")
    assert frames["index"].to_pylist() == list(range(34))
    assert set(frames.column_names) == set(info["features"])
    assert info["fps"] == 20
    assert frames["timestamp"].to_pylist()[:3] == pytest.approx([0, 0.05, 0.1])
    np.testing.assert_array_equal(np.float32(frames["observation.state"].to_pylist()[7]), made[1].obs[1])
    statistics = json.loads((tmp_path / "out/meta/stats.json").read_text())["action"]
    actions = np.concatenate([episode.action for episode in made])
    np.testing.assert_allclose(statistics["std"], actions.std(0), rtol=1e-4)
    np.testing.assert_allclose(statistics["max"], actions.max(0))
    with pytest.raises(InvalidInputError, match="export one task"):
        write_lerobot(tmp_path / "mixed", [*made, *episodes("reacher-easy", 1)], 20.0)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_long_datasets_have_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lerobot_writing, "_FILE_BYTES", 1000)
    monkeypatch.setattr(lerobot_writing, "_FILES_PER_CHUNK", 2)
    made = episodes("walker-walk", 6, length=12)
    write_lerobot(tmp_path / "out", made, 20.0)
    files = [str(path.relative_to(tmp_path / "out/data")) for path in sorted((tmp_path / "out/data").glob("*/*"))]
    assert files[:3] == ["chunk-000/file-000.parquet", "chunk-000/file-001.parquet", "chunk-001/file-000.parquet"]
    assert same(imported(tmp_path / "out"), made)


def test_theirs_lose_the_step_whose_end_nobody_saw(tmp_path: Path) -> None:
    folder = theirs(tmp_path / "push")
    found = imported(folder, renamed=RENAMED)
    assert [(e.task, e.transitions, e.success, e.terminated) for e in found] == [
        ("mw-push", 3, 1.0, False),
        ("mw-push", 5, 1.0, False),
    ]
    frames = pq.read_table(folder / "data/chunk-000/file-000.parquet")
    states = np.hstack(
        [np.float32(frames[f"observation.{name}"].to_pylist()) for name in ("state", "environment_state")]
    )
    np.testing.assert_array_equal(found[1].obs, states[4:])
    np.testing.assert_array_equal(found[1].action, np.float32(frames["action"].to_pylist())[4:9])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"observation.state": np.zeros((10, 3)).tolist()},
            "observation.state: got 12 numbers in 4 frames.*expected 4",
        ),
        ({"action": np.full((10, A), np.nan).tolist()}, "episode 0: action: got nan in step 0, column 0"),
        ({"action": [None] * 10}, "action: got .* 4 of them missing"),
        ({"next.done": np.ones(10, np.bool_)}, "episode 0: terminated: expected one flag"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"push.*{message}"):
        imported(theirs(tmp_path / "push", columns), renamed=RENAMED)


def test_other_versions_unknown_tasks_and_missing_columns(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"got v2\.1, expected v3\.0; convert it"):
        imported(theirs(tmp_path / "old", info={"codebase_version": "v2.1"}))
    folder = theirs(tmp_path / "push")
    with pytest.raises(InvalidInputError, match=rf'unknown task .*\[tasks\].*"{TEXT}" = "TASK"'):
        imported(folder)
    renamed = RecordingMap.model_validate({"columns": {"reward": "reward"}})
    with pytest.raises(InvalidInputError, match=r"reward: no such column, expected reward; .*next\.reward"):
        imported(folder, renamed=renamed)
    with pytest.raises(InvalidInputError, match=r"obs: got 4 columns, expected 39 of mw-push"):
        imported(folder, renamed=RecordingMap(tasks={TEXT: "mw-push"}))


@pytest.mark.parametrize(
    ("place", "columns", "info"),
    [
        ("data/chunk-000/file-000.parquet", {"episode_index": np.repeat([0, 1], (5, 5))}, {}),
        ("data/chunk-000/file-000.parquet", {"episode_index": np.repeat([0, 2], LENGTHS)}, {}),
        ("meta/episodes", {}, {"total_episodes": 3}),
        ("meta/info.json", {}, {"features": None}),
    ],
)
def test_what_does_not_fit_together_is_damage(
    tmp_path: Path, place: str, columns: dict[str, Any], info: dict[str, Any]
) -> None:
    with pytest.raises(CorruptDataError, match=place):
        imported(theirs(tmp_path / "push", columns, info), renamed=RENAMED)


@pytest.mark.parametrize(
    "place", ["data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet", "meta/info.json"]
)
def test_files_that_are_cut_off(tmp_path: Path, place: str) -> None:
    file = theirs(tmp_path / "push") / place
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CorruptDataError, match=rf"{place}: damaged or cut off"):
        imported(tmp_path / "push", renamed=RENAMED)
