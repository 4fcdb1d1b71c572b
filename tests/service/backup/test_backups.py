"""Backups of a real Redis and a data folder, while somebody writes, and what a restore refuses."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from deployments import BUFFER, DEMOS, ROWS, Deployment, append, run_of, whole
from typer.testing import CliRunner

from newt.backup import folders, making, manifest, places, redis_side, restoring
from newt.cli.main import app
from newt.errors import (
    AlreadyExistsError,
    CorruptDataError,
    ExhaustedError,
    NewtError,
    NotFoundError,
    PreconditionError,
    UnavailableError,
)
from newt.local import redis_server
from newt.runs.record import RunState
from services.learner.data_folder import DataFolder
from services.learner.records import keys
from services.learner.records.store import Records
from services.replay.store import ROOT, Store


@pytest.fixture
def backup(source: Deployment, tmp_path: Path) -> Path:
    source.back_up(tmp_path / "backup")
    return tmp_path / "backup"


def test_everything_comes_back_with_the_rights_of_the_services(
    source: Deployment, target: Deployment, tmp_path: Path
) -> None:
    for not_kept in ("compiled/x", "models/y", "runs/run-1/trainer.lock", "runs/run-1/checkpoints/z.partial"):
        (source.data / not_kept).parent.mkdir(exist_ok=True)
        (source.data / not_kept).touch()
    kept = {name: data for name, data in source.files().items() if data}
    assert len(kept) == 4
    done = source.back_up(tmp_path / "backup")
    counts = (done.runs, done.evaluations, done.buffers, done.demo_sets, done.episodes)
    assert counts == (2, 1, 1, 1, 12 + 5)
    assert target.restore(tmp_path / "backup") == done
    expected = source.contents()
    assert len(expected) > 20
    for run_id in ("run-1", "run-2"):
        expected[keys.run(run_id)][b"directory"] = str(target.data / "runs" / run_id).encode()
    assert target.contents() == expected
    assert target.files() == kept
    assert [run.state for run in Records.connect(target.server.url).runs.list_unfinished().records] == ["pretraining"]


def test_a_buffer_that_is_written_meanwhile_is_whole(
    target: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Episodes come and are evicted as fast as Redis can; they are read a few at a time, as large ones are."""
    monkeypatch.setattr(redis_side, "_READ_EPISODES", 5)
    busy = redis_server.start(tmp_path / "busy")
    other = Deployment(busy, tmp_path / "no-files")
    other.data.mkdir()
    store = Store(busy.url, 5, remembered_ids=20)
    store.create(BUFFER, b"", capacity_rows=40 * ROWS)
    store.create(DEMOS, b"", capacity_rows=0)
    append(store, BUFFER, 0)
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            append(store, DEMOS, number)
            append(store, BUFFER, number + 1)
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in itertools.count():
            made = other.back_up(tmp_path / "backup")
            if b"DEL" in (tmp_path / "backup" / manifest.REDIS).read_bytes():
                break  # some were evicted while they were copied
            shutil.rmtree(tmp_path / "backup")
            assert number < 1_000
    finally:
        stop.set()
        writer.join()
        busy.stop()
    target.restore(tmp_path / "backup")
    restored = Store(target.server.url, 5, remembered_ids=20)
    episodes = 0
    for key in (BUFFER, DEMOS):
        meta = restored.meta(key)
        assert meta is not None
        payloads = [payload for _, payload in restored.read(key, meta)]
        assert None not in payloads
        assert meta.rows == ROWS * len(payloads)
        assert meta.bytes == sum(len(payload or b"") for payload in payloads)
        stored = [name for name in target.contents() if name.startswith(key.episodes)]
        assert len(stored) == len(payloads)
        append(restored, key, meta.next)
        episodes += len(payloads)
    assert episodes == made.episodes


def test_a_run_that_ends_meanwhile_has_its_last_checkpoint(
    target: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders are copied first: a run that is over in Redis would have an older folder than it says."""
    data = tmp_path / "source"
    records = Records.connect(target.server.url)
    ends, goes_on, deleted = (run_of(records, name, data) for name in ("ends", "goes-on", "deleted"))
    deleted.succeed()
    for name in ("ends", "goes-on", "deleted"):
        (data / "runs" / name / "checkpoints").mkdir(parents=True)
        (data / "runs" / name / "checkpoints" / "0").touch()
    copy = redis_side.copy

    def with_news(*arguments: Any) -> redis_side.Copied:
        for name in ("ends", "goes-on"):
            (data / "runs" / name / "checkpoints" / "last").touch()
        ends.succeed()
        records.runs.delete("deleted")
        (data / "runs" / "deleted" / "checkpoints" / "0").unlink()
        run_of(records, "young", data)
        return copy(*arguments)

    monkeypatch.setattr(redis_side, "copy", with_news)
    made = making.make(tmp_path / "backup", [target.server.url], data)
    assert goes_on.get().state is RunState.PRETRAINING
    found = {name for name in made.files if name != manifest.REDIS}
    assert found == {
        f"data/runs/{name}" for name in ("ends/checkpoints/0", "ends/checkpoints/last", "goes-on/checkpoints/0")
    }
    target.server.stop()
    empty = redis_server.start(tmp_path / "empty")
    try:
        restoring.restore(tmp_path / "backup", [empty.url], tmp_path / "restored")
        assert Records.connect(empty.url).runs.states() == {"ends": "succeeded", "goes-on": "pretraining"}
    finally:
        empty.stop()


def _flip(backup: Path) -> None:
    path = next((backup / "data").rglob("0.safetensors"))
    content = bytearray(path.read_bytes())
    content[1_000] ^= 1
    path.write_bytes(content)


def _newer(backup: Path) -> None:
    path = backup / manifest.NAME
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "format": manifest.FORMAT + 1, "newt_version": "9.9"}))


def _outside(backup: Path) -> None:
    path = backup / manifest.NAME
    values = json.loads(path.read_text())
    values["files"]["data/../../x"] = values["files"].pop(manifest.REDIS)
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("damage", "error", "words"),
    [
        (_flip, CorruptDataError, "0.safetensors is damaged"),
        (lambda backup: (backup / manifest.REDIS).unlink(), CorruptDataError, "redis.resp cannot be read"),
        (lambda backup: os.truncate(backup / manifest.REDIS, 99), CorruptDataError, "got 99 bytes"),
        (lambda backup: (backup / manifest.NAME).unlink(), NotFoundError, "is no backup: it has no manifest.json"),
        (lambda backup: os.truncate(backup / manifest.NAME, 99), CorruptDataError, "manifest.json is damaged"),
        (_newer, PreconditionError, "restore it with Newt 9.9 or later"),
        (_outside, CorruptDataError, "it names 'data/../../x'"),
    ],
)
def test_what_is_no_whole_backup_is_refused_before_anything_is_written(
    source: Deployment,
    tmp_path: Path,
    damage: Callable[[Path], None],
    error: type[NewtError],
    words: str,
    unused: Deployment,
) -> None:
    source.back_up(tmp_path / "backup")
    damage(tmp_path / "backup")
    with pytest.raises(error, match=words):
        unused.restore(tmp_path / "backup")
    assert unused.contents() == {}
    assert not unused.data.exists()


def test_what_is_there_is_never_overwritten(
    source: Deployment, backup: Path, unused: Deployment, tmp_path: Path
) -> None:
    before, files = source.contents(), source.files()
    with pytest.raises(PreconditionError, match="Redis is not empty: it has newt:"):
        restoring.restore(backup, [source.server.url], tmp_path / "other")
    with pytest.raises(PreconditionError, match="is not empty: it has runs, checkpoints"):
        restoring.restore(backup, [unused.server.url], source.data)
    with (source.data / "learner.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(PreconditionError, match="a learner works in"):
            restoring.restore(backup, [unused.server.url], source.data)
    with pytest.raises(AlreadyExistsError, match="is a backup already; choose another place"):
        source.back_up(backup)
    whole(backup)
    assert (source.contents(), source.files(), unused.contents()) == (before, files, {})


def test_a_backup_on_a_full_disk_leaves_nothing(source: Deployment, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "NEWT_LEARNER_REDIS_URL": source.server.url,
        "NEWT_LEARNER_DATA_DIR": str(source.data),
    }
    # No file may grow beyond this, which the disk answers as if it were full.
    done = subprocess.run(
        [sys.executable, "-m", "newt.backup", "make", str(tmp_path / "backup")],
        env=environment,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.endswith("cannot be written: File too large; nothing of it is left")
    assert list(tmp_path.iterdir()) == []


def test_a_redis_without_room_or_without_life_gets_nothing(backup: Path, tmp_path: Path) -> None:
    small = redis_server.start(tmp_path / "redis", maxmemory_bytes=950_000)
    other = Deployment(small, tmp_path / "data")
    try:
        padding: Any = redis.Redis.from_url(small.url)
        padding.set("padding", bytes(max(0, 945_000 - padding.info("memory")["used_memory"])))
        with pytest.raises(ExhaustedError, match=r"Redis is full .*; nothing of it is left"):
            other.restore(backup)
        assert (other.contents(), other.files()) == ({}, {})
    finally:
        small.stop()
    with pytest.raises(UnavailableError, match="cannot be reached"):
        other.restore(backup)
    with pytest.raises(UnavailableError, match=r"cannot be reached .*; nothing of it is left"):
        other.back_up(tmp_path / "second")
    assert not (tmp_path / "second").exists()


def test_the_newest_backups_are_kept(source: Deployment, tmp_path: Path) -> None:
    for name in ("20200101T000000Z", "20200102T000000Z", "20200103T000000Z", "mine"):
        (tmp_path / name).mkdir()
        if name != "20200103T000000Z":  # was not finished
            (tmp_path / name / manifest.NAME).touch()
    arguments = ["--redis", source.server.url, "--data", str(source.data), "--keep", "2"]
    done = CliRunner().invoke(app, ["backup", str(tmp_path), *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept[:2] + kept[3:] == ["20200102T000000Z", "20200103T000000Z", "mine"]
    assert str(tmp_path / kept[2]) in done.output
    whole(tmp_path / kept[2])


def test_a_stopped_home_is_restored_and_backed_up(source: Deployment, backup: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    for words in (["restore", str(backup)], ["backup", str(tmp_path / "second")]):
        done = CliRunner().invoke(app, [*words, "--home", str(home)], catch_exceptions=False)
        assert "2 runs, 1 evaluations, 17 episodes in 1 buffers and 1 demonstration sets" in done.output
    first, second = manifest.read(places.at(backup)), manifest.read(places.at(tmp_path / "second"))
    del first.files[manifest.REDIS], second.files[manifest.REDIS]
    assert first.files == second.files
    with pytest.raises(PreconditionError, match="is not empty"):
        CliRunner().invoke(app, ["restore", str(backup), "--home", str(home)], catch_exceptions=False)


def test_the_names_are_those_of_the_services() -> None:
    assert (ROOT, BUFFER.keys[3]) == (redis_side.REPLAY, redis_side.SPACES)
    assert (redis_side.RUNS, redis_side.UNFINISHED) == (keys.RUNS, keys.UNFINISHED)
    assert redis_side.JOBS == {"evaluations": keys.EVALUATIONS, "demos": keys.DEMOS}
    assert {*redis_side.STREAMS, "evaluations"} == set(keys.PARTS)
    folder = DataFolder(Path("/data"))
    kept = {folder.runs, folder.imported, folder.evaluation("x").parent, folder.demos_log("x").parent}
    assert {Path("/data") / name for name in folders.FOLDERS} == kept
    assert folder.lock == Path("/data") / folders.LEARNER_LOCK
