"""Backups in a bucket of a real S3 server (moto's), with faults between it and us."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from deployments import Deployment, whole
from storages import BUCKET, Storage, serving
from typer.testing import CliRunner

from newt.backup import buckets, manifest, places
from newt.cli.main import app
from newt.errors import (
    AlreadyExistsError,
    CorruptDataError,
    ForbiddenError,
    InvalidInputError,
    NewtError,
    NotFoundError,
    PreconditionError,
    UnavailableError,
)
from services.learner.records import keys

PLACE = f"s3://{BUCKET}/newt/monday"
LEAST_PART = 5 * 2**20  # of S3 and all that are like it
LARGE = "runs/run-2/checkpoints/large.safetensors"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    with serving(tmp_path_factory.mktemp("storage")) as storage:
        yield storage


@pytest.fixture
def storage(server: Storage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    """With a new bucket."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {**server.environment, "AWS_CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(name, value)
    client = server.client = buckets.connect()
    client.create_bucket(Bucket=BUCKET)
    server.asked.clear()
    yield server
    server.fault = None
    for name in server.names():
        client.delete_object(Bucket=BUCKET, Key=name)
    for item in client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ()):
        client.abort_multipart_upload(Bucket=BUCKET, Key=item["Key"], UploadId=item["UploadId"])
    client.delete_bucket(Bucket=BUCKET)


@pytest.fixture
def large(source: Deployment, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A checkpoint that is sent in parts."""
    monkeypatch.setattr(buckets, "PART_BYTES", LEAST_PART)
    path = source.data / LARGE
    path.write_bytes(os.urandom(2 * LEAST_PART + 1_000))
    os.utime(path, ns=(10**18, 10**18))
    yield path
    path.unlink()


def test_everything_comes_back_from_a_bucket(
    source: Deployment, target: Deployment, storage: Storage, large: Path
) -> None:
    done = source.back_up(PLACE)
    assert storage.asked[-1] == ("PUT", f"/{BUCKET}/newt/monday/manifest.json")
    parts = [path for method, path in storage.asked if method == "PUT" and "partNumber" in path]
    assert len(parts) == 3
    assert set(storage.names()) == {f"newt/monday/{name}" for name in (*done.files, manifest.NAME)}
    assert target.restore(PLACE) == done
    expected = source.contents()
    for run_id in ("run-1", "run-2"):
        expected[keys.run(run_id)][b"directory"] = str(target.data / "runs" / run_id).encode()
    assert target.contents() == expected
    assert target.files() == {name: data for name, data in source.files().items() if data}
    assert (target.data / LARGE).stat().st_mtime_ns == 10**18
    with pytest.raises(PreconditionError, match="is not empty"):
        target.restore(PLACE)


def _flip(client: Any, key: str) -> None:
    content = bytearray(client.get_object(Bucket=BUCKET, Key=key)["Body"].read())
    content[len(content) // 2] ^= 1
    client.put_object(Bucket=BUCKET, Key=key, Body=bytes(content))


def _cut(client: Any, key: str) -> None:
    client.put_object(Bucket=BUCKET, Key=key, Body=client.get_object(Bucket=BUCKET, Key=key)["Body"].read()[:-7])


def _newer(client: Any, key: str) -> None:
    values = json.loads(client.get_object(Bucket=BUCKET, Key=key)["Body"].read())
    values |= {"format": manifest.FORMAT + 1, "newt_version": "9.9"}
    client.put_object(Bucket=BUCKET, Key=key, Body=json.dumps(values).encode())


def _lost(client: Any, key: str) -> None:
    client.delete_object(Bucket=BUCKET, Key=key)


@pytest.mark.parametrize(
    ("damage", "name", "error", "words"),
    [
        (_flip, "data/runs/run-1/checkpoints/0.safetensors", CorruptDataError, "0.safetensors is damaged: got 3000 b"),
        (_cut, manifest.REDIS, CorruptDataError, "redis.resp is damaged"),
        (_lost, manifest.REDIS, CorruptDataError, r"redis.resp cannot be read \(No such file"),
        (_lost, manifest.NAME, NotFoundError, f"{PLACE} is no backup: it has no manifest.json"),
        (_cut, manifest.NAME, CorruptDataError, "manifest.json is damaged"),
        (_newer, manifest.NAME, PreconditionError, "restore it with Newt 9.9 or later"),
    ],
)
def test_what_is_no_whole_backup_is_refused(
    source: Deployment,
    unused: Deployment,
    storage: Storage,
    damage: Callable[[Any, str], None],
    name: str,
    error: type[NewtError],
    words: str,
) -> None:
    source.back_up(PLACE)
    damage(storage.client, f"newt/monday/{name}")
    with pytest.raises(error, match=words):
        unused.restore(PLACE)
    assert unused.contents() == {}
    assert not unused.data.exists()
    with pytest.raises(AlreadyExistsError, match="a backup"):
        source.back_up(PLACE)


@pytest.mark.parametrize("code", [(403, "AccessDenied"), (400, "QuotaExceeded")])
@pytest.mark.parametrize("at", ["partNumber=2", "redis.resp", "manifest.json"])
def test_a_backup_that_fails_leaves_nothing(
    source: Deployment, storage: Storage, large: Path, code: tuple[int, str], at: str
) -> None:
    storage.client.put_object(Bucket=BUCKET, Key="newt/tuesday", Body=b"of somebody else")
    storage.fault = lambda method, path: code if method == "PUT" and at in path else None
    error = ForbiddenError if code[0] == 403 else UnavailableError
    with pytest.raises(error, match=r"by the test.*; nothing of it is left$"):
        source.back_up(PLACE)
    assert (storage.names(), storage.uploads()) == (["newt/tuesday"], [])


def test_a_storage_that_goes_away_says_what_may_be_left(source: Deployment, storage: Storage) -> None:
    gone = threading.Event()

    def fault(method: str, path: str) -> tuple[int, str] | None:
        if "redis.resp" in path:
            gone.set()
        return (503, "ServiceUnavailable") if gone.is_set() else None

    storage.fault = fault
    with pytest.raises(UnavailableError, match=f"ServiceUnavailable.*; remove what is left in {PLACE}$"):
        source.back_up(PLACE)
    storage.fault = None
    with pytest.raises(AlreadyExistsError, match="a backup that was not finished"):
        source.back_up(PLACE)


def test_replies_that_break_off_are_asked_for_again(source: Deployment, target: Deployment, storage: Storage) -> None:
    source.back_up(PLACE)
    cut: set[str] = set()

    def fault(method: str, path: str) -> str | None:
        if method != "GET" or path in cut or "list-type" in path:
            return None
        cut.add(path)
        return "cut"

    storage.fault = fault
    target.restore(PLACE)
    assert len(cut) > 3
    assert target.files() == {name: data for name, data in source.files().items() if data}


def test_a_restore_that_loses_its_storage_takes_back_what_it_has_written(
    source: Deployment, unused: Deployment, storage: Storage
) -> None:
    source.back_up(PLACE)
    reads = 0

    def fault(method: str, path: str) -> tuple[int, str] | None:
        nonlocal reads
        reads += method == "GET" and path.endswith("/redis.resp")
        return (403, "ExpiredToken") if reads > 1 else None  # all is read once before anything is written

    storage.fault = fault
    with pytest.raises(ForbiddenError, match=r"refuses these keys .*; nothing of it is left"):
        unused.restore(PLACE)
    assert (unused.contents(), unused.files()) == ({}, {})
    (unused.data / "learner.lock").unlink()
    unused.data.rmdir()


def test_a_process_that_is_killed_leaves_what_is_refused_and_later_removed(
    source: Deployment, unused: Deployment, storage: Storage, large: Path, tmp_path: Path
) -> None:
    late, let_go = threading.Event(), threading.Event()

    def fault(method: str, path: str) -> tuple[int, str] | None:
        if method != "PUT" or "redis.resp" not in path:
            return None
        late.set()
        let_go.wait(60)
        return 500, "InternalError"  # to nobody

    storage.fault = fault
    settings = {"NEWT_LEARNER_REDIS_URL": source.server.url, "NEWT_LEARNER_DATA_DIR": str(source.data)}
    command = [sys.executable, "-m", "newt.backup", "make", f"s3://{BUCKET}/all", "--keep", "1"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, env={**os.environ, **settings}, stdout=log, stderr=log)
    assert late.wait(60), (tmp_path / "log").read_text()
    process.send_signal(signal.SIGKILL)
    process.wait()
    client = storage.client
    (unfinished,) = places.at(f"s3://{BUCKET}/all").entries() or ()
    client.create_multipart_upload(Bucket=BUCKET, Key=f"all/{unfinished}/data/half")
    storage.fault = None
    with pytest.raises(NotFoundError, match="is no backup"):
        unused.restore(f"s3://{BUCKET}/all/{unfinished}")
    let_go.set()
    for _ in range(2):  # the second one is the first that is one too many
        done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
    (kept,) = places.at(f"s3://{BUCKET}/all").entries() or ()
    assert kept > unfinished
    assert storage.uploads() == []
    assert f"s3://{BUCKET}/all/{kept}: 2 runs" in done.stdout
    whole(f"s3://{BUCKET}/all/{kept}")


def test_the_newest_backups_are_kept(source: Deployment, storage: Storage) -> None:
    client = storage.client
    others = ["20200103T000000Z/data/x", "mine/manifest.json", "20200104T000000Z-notes"]
    for name in ("20200101T000000Z/manifest.json", "20200102T000000Z/manifest.json", *others):
        client.put_object(Bucket=BUCKET, Key=name, Body=b"")
    arguments = ["--redis", source.server.url, "--data", str(source.data), "--keep", "2"]
    done = CliRunner().invoke(app, ["backup", f"s3://{BUCKET}/", *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    kept = places.at(f"s3://{BUCKET}").entries() or []
    assert kept[:3] + kept[4:] == ["20200102T000000Z", "20200103T000000Z", "20200104T000000Z-notes", "mine"]
    assert f"s3://{BUCKET}/{kept[3]}: 2 runs" in done.output
    whole(f"s3://{BUCKET}/{kept[3]}")


def test_an_address_without_sense_is_refused(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ("s3://", "s3:///x", f"s3://{BUCKET}/a//b", f"s3://{BUCKET}/../b", "gs://bucket/x"):
        with pytest.raises(InvalidInputError, match="expected "):
            places.at(wrong)
    with pytest.raises(InvalidInputError, match="Invalid bucket name"):
        places.at("s3://not a name/x").entries()
    with pytest.raises(NotFoundError, match="there is no bucket elsewhere; make it first"):
        places.at("s3://elsewhere/x").entries()
    with pytest.raises(NotFoundError, match="there is no bucket elsewhere"):
        places.at("s3://elsewhere/x").has(manifest.NAME)
    assert isinstance(places.at("s3:/one-slash"), places.FolderPlace)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "localhost:9000")
    with pytest.raises(InvalidInputError, match="localhost:9000"):
        places.at(PLACE)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(UnavailableError, match=f"{PLACE} cannot be reached: Could not connect"):
        places.at(PLACE).entries()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(ForbiddenError, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        places.at(PLACE).entries()
    monkeypatch.setattr("newt.extras.util.find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match=r"pip install 'newt\[s3\]'"):
        places.at(PLACE)
