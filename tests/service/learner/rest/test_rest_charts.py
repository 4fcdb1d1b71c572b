"""What charts are drawn from: the overview, metrics as columns and as files, comparisons."""

from __future__ import annotations

import csv
import io
import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from api_server import Api
from commands import Commands
from learner_stack import wait_until
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from newt.cli.main import app
from newt.errors import NotFoundError, UnavailableError
from newt.runs.metrics_files import COLUMNS
from newt.runs.record import EpisodeStats, Evaluation, EvaluationKind, RunState
from services.learner.records.progress import CollectorProgress, TaskProgress
from services.learner.records.writer import RunWriter

TENSORBOARD = ("--to", "tensorboard")
TASKS = ["mujoco-reacher", "mujoco-walker"]
RUN: dict[str, Any] = {
    "tasks": TASKS,
    "preset": "laptop",
    "schedule": {"total_env_steps": 1000, "eval_every_env_steps": 500},
}


def start(api: Api, **changes: Any) -> RunWriter:
    """A run whose processes are played by the test."""
    run_id = api.http.post("/runs", json={**RUN, **changes}).json()["id"]
    attempt = api.learner.records.runs.begin(run_id)
    assert attempt is not None
    return RunWriter(api.learner.records, run_id, attempt)


def evaluate(writer: RunWriter, kind: EvaluationKind, env_steps: int, score: float) -> None:
    stats = EpisodeStats(score=score, corrected_score=score, return_=1.0, success=None, length=9, episodes=2)
    tasks = dict.fromkeys(TASKS, stats)
    writer.evaluation(Evaluation(kind=kind, mode="planner", env_steps=env_steps, tasks=tasks))


def test_the_values_of_presets_are_told(api: Api) -> None:
    spec = start(api, preset="laptop", schedule={"total_env_steps": 5_000}).get().spec
    told = api.http.get("/presets/laptop", params={"total_env_steps": 5_000}).json()
    assert told["schedule"]["seed_env_steps"] == 500
    assert {**told, "seed": spec.seed, "name": spec.name} == spec.model_dump(mode="json", exclude={"tasks"})
    assert "model" not in api.http.get("/presets/default", params={"init_from": "imported/any"}).json()
    for wrong in ("/presets/desktop", "/presets/laptop?algorithm=sac", "/presets/laptop?total_env_steps=-5"):
        assert api.http.get(wrong).status_code == 422


def test_the_overview_has_a_line_for_each_run(api: Api) -> None:
    writer = start(api, seed=1, labels={"variant": "a"})
    like_it, other = start(api, seed=2, labels={"variant": "a"}), start(api, seed=1, labels={"variant": "b"})
    writer.enter(RunState.TRAINING)
    tasks = {TASKS[0]: TaskProgress(last_score=0.5), TASKS[1]: TaskProgress()}
    writer.progress("collector", CollectorProgress(stage="collecting", env_steps=250, tasks=tasks))
    found = api.http.get("/overview")
    while writer.run_id not in found.text:  # it is at most a second old
        found = api.http.get("/overview")
    runs = {run["id"]: run for run in found.json()["runs"]}
    line = runs[writer.run_id]
    assert (line["state"], line["score"], line["tasks"], line["domains"]) == ("training", 0.5, 2, ["mujoco"])
    assert (line["env_steps"], line["total_env_steps"]) == (250, 1000)
    assert runs[like_it.run_id]["group"] == line["group"] != runs[other.run_id]["group"]
    created = [run["created_at"] for run in found.json()["runs"]]
    assert created == sorted(created, reverse=True)


def told_by(*command: str) -> list[str]:
    """Lines of a command; the API logs from this process, too."""
    lines = CliRunner().invoke(app, command).output.splitlines()
    return [line for line in lines if "change_asked" not in line]


def test_people_write_tags_and_notes(api: Api) -> None:
    writer = start(api, seed=77)
    path = f"/runs/{writer.run_id}"
    changed = api.http.patch(path, json={"tags": ["good", " paper ", "good"], "notes": "# Why\n" + "x" * 500})
    assert changed.status_code == 200, changed.text
    assert changed.json()["tags"] == ["good", "paper"]
    writer.fail("no matter")
    assert api.http.patch(path, json={"tags": ["good"]}).json()["notes"].startswith("# Why")
    assert api.http.get(path).json()["spec"] == changed.json()["spec"]
    assert [run["id"] for run in api.http.get("/runs", params={"tag": "good"}).json()["runs"]] == [writer.run_id]
    assert api.http.get("/runs", params={"tag": ["good", "paper"]}).json()["runs"] == []
    line: dict[str, Any] = {}
    while line.get("tags") != ["good"]:  # the overview is at most a second old
        runs = api.http.get("/overview").json()["runs"]
        line = next((run for run in runs if run["id"] == writer.run_id), {})
    assert len(line["notes"]) == 300
    for wrong in ({"tags": ["a,b"]}, {"tags": ["x" * 51]}, {"tags": [""]}, {"notes": "x" * 20_001}, {"seed": 2}):
        reply = api.http.patch(path, json=wrong)
        assert reply.status_code == 422
        assert reply.json()["fields"][0]["field"].startswith(next(iter(wrong)))
    assert api.http.patch("/runs/nobody", json={"tags": []}).status_code == 404
    command, url = ["runs", "note", writer.run_id], ["--url", f"http://127.0.0.1:{api.port}"]
    assert told_by(*command, "[b]Why?", "--tag", "a", "--tag", "b", *url) == ["tags: a, b", "[b]Why?"]
    assert told_by(*command, "--tag", "c", "--clear", *url) == ["tags: c", ""]


def test_the_ends_of_logs_are_told(api: Api) -> None:
    writer = start(api)
    path, folder = f"/runs/{writer.run_id}/logs", api.learner.settings.folder
    assert api.http.get(path).json() == {"logs": []}
    for process, lines in (("trainer", 5_000), ("collector", 1)):
        log = folder.run_log(writer.run_id, process)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"".join(b"line %d\n" % number for number in range(lines)) + b"\xff" * 9_000 + b"\n")
    found = api.http.get(path, params={"lines": 3}).json()["logs"]
    assert [log["process"] for log in found] == ["collector", "trainer"]
    assert [len(line) for line in found[1]["lines"]] == [9, 9, 4_000]
    assert found[1]["size_bytes"] > 50_000
    only = api.http.get(path, params={"process": "collector"}).json()["logs"]
    assert [log["lines"][0] for log in only] == ["line 0"]
    for wrong in ("../../learner", "evaluator"):
        reply = api.http.get(path, params={"process": wrong})
        assert reply.status_code == 404
        assert "it has: collector, trainer" in reply.json()["message"]


def test_metrics_come_as_columns_and_grow(api: Api) -> None:
    writer = start(api)
    path = f"/runs/{writer.run_id}/series"
    assert api.http.get(path).json() == {"run_id": writer.run_id, "names": [], "series": []}
    for step in range(200):
        writer.metrics("trainer", 10 * step, step, {"loss": 9.0 if step == 77 else 1.0})
    assert api.http.get(path).json()["names"] == ["loss"]
    (loss,) = api.http.get(path, params={"name": ["loss", "none"], "points": 20}).json()["series"]
    assert (loss["total"], max(loss["values"]), loss["updates"][-1]) == (200, 9.0, 199)
    assert len(loss["values"]) == len(loss["env_steps"]) == len(loss["time"]) == len(loss["superseded"]) <= 20
    writer.metrics("trainer", 2000, 200, {"loss": 2.0})
    (loss,) = api.http.get(path, params={"name": "loss", "points": 5000}).json()["series"]
    assert (loss["total"], len(loss["values"]), loss["values"][-1]) == (201, 201, 2.0)
    assert api.http.get("/runs/none-12345678/series").status_code == 404


def test_metrics_are_taken_home_whole(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, commands = start(api), Commands(app)
    at, kept = ("--url", str(api.http.base_url)), ("--output", tmp_path)
    for step in range(1200):
        writer.metrics("trainer", step, step, {"loss": step / 2, "grad": 1.0})
    path = f"/runs/{writer.run_id}/metrics"
    assert len(api.http.get(path).json()["rows"]) == 1000
    table = api.http.get(path, params={"format": "csv", "name": "loss"})
    assert table.headers["content-type"].startswith("text/csv")
    assert f'filename="{writer.run_id}-metrics.csv"' in table.headers["content-disposition"]
    rows = list(csv.DictReader(table.text.splitlines()))
    assert len(rows) == 1200
    assert (rows[-1]["name"], rows[-1]["value"], rows[-1]["updates"]) == ("loss", "599.5", "1199")
    lines = [json.loads(line) for line in api.http.get(path, params={"format": "jsonl"}).text.splitlines()]
    assert (len(lines), lines[9]["values"]) == (1200, {"loss": 4.5, "grad": 1.0})

    whole = api.http.get(path, params={"format": "parquet"})
    assert whole.headers["content-type"] == "application/vnd.apache.parquet"
    table = pq.read_table(io.BytesIO(whole.content))
    assert (table.num_rows, table.column_names) == (2400, list(COLUMNS))
    assert table.slice(2398).to_pylist()[0]["value"] == 599.5
    monkeypatch.setattr("newt.extras.util.find_spec", lambda module: None)
    refused = api.http.get(path, params={"format": "parquet"})
    assert refused.status_code == 422
    assert "pip install 'newt[parquet]'" in refused.json()["fields"][0]["message"]
    assert "newt[tensorboard]" in commands.refused(UnavailableError, "runs", "follow", writer.run_id, *TENSORBOARD, *at)
    assert not Path("tensorboard").exists()
    monkeypatch.undo()

    for format, there in (("csv", 2401), ("jsonl", 1200), ("parquet", None)):
        commands.succeed("runs", "export", writer.run_id, "--format", format, *kept, *at)
        file = tmp_path / f"{writer.run_id}-metrics.{format}"
        assert pq.read_table(file).equals(table) if there is None else file.read_bytes().count(b"\n") == there
    assert "none-12345678" in commands.refused(NotFoundError, "runs", "export", "none-12345678", *kept, *at)
    commands.succeed("runs", "export", writer.run_id, "--format", "json", *kept, *at)
    record = tmp_path / f"{writer.run_id}.run.json"
    said = commands.succeed("runs", "plot", "--from", record, "--output", tmp_path / "drawn")  # without the learner
    assert "losses.svg" in said
    for listing in (("runs",), ("runs", "checkpoints", writer.run_id), ("evaluations",), ("checkpoints", "list")):
        assert isinstance(json.loads(commands.succeed(*listing, "--json", *at)), dict), listing


def test_tensorboard_is_told_what_a_run_tells(api: Api, tmp_path: Path) -> None:
    writer = start(api)
    writer.metrics("trainer", 30, 3, {"loss": 0.5})
    writer.metrics("collector", 40, 3, {"score/mujoco-walker": 0.25})
    command = ("runs", "follow", writer.run_id, "--to", "tensorboard", "--output", tmp_path)
    with ThreadPoolExecutor() as pool:
        said = pool.submit(Commands(app).succeed, *command, "--url", str(api.http.base_url))
        while not list(tmp_path.rglob("events.*")):
            time.sleep(0.05)
        writer.metrics("trainer", 60, 9, {"loss": 0.125})
        api.http.post(f"/runs/{writer.run_id}/cancel")
        assert f"3 rows of {writer.run_id} told to tensorboard\n" in said.result(60)
    found = EventAccumulator(str(tmp_path / writer.run_id)).Reload()
    assert set(found.Tags()["scalars"]) == {"trainer/loss", "collector/score/mujoco-walker"}
    assert [(point.step, point.value) for point in found.Scalars("trainer/loss")] == [(3, 0.5), (9, 0.125)]
    rows = api.http.get(f"/runs/{writer.run_id}/metrics").json()["rows"]
    assert found.Scalars("trainer/loss")[0].wall_time == datetime.fromisoformat(rows[0]["time"]).timestamp()


def test_weights_and_biases_is_told_what_a_run_tells(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its own library, offline: what it would send is in a file."""
    for name, value in {"MODE": "offline", "DIR": str(tmp_path), "CONSOLE": "off", "SILENT": "true"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    writer = start(api, name="offline")
    writer.metrics("trainer", 30, 3, {"loss": 0.0625})
    writer.metrics("collector", 40, 3, {"score/mujoco-walker": 0.28125})
    api.http.post(f"/runs/{writer.run_id}/cancel")
    command = ("runs", "follow", writer.run_id, "--to", "wandb", "--url", str(api.http.base_url))
    assert f"2 rows of {writer.run_id} told to wandb\n" in Commands(app).succeed(*command)
    (file,) = tmp_path.rglob(f"run-{writer.run_id}.wandb")
    words = ("trainer/loss", "0.0625", "collector/score/mujoco-walker", "0.28125", "env_steps", "mujoco-reacher")
    # A process of W&B's own writes it; on a busy machine, also after the run has been finished.
    wait_until(lambda: all(word.encode() in file.read_bytes() for word in words), "all that was told", 60.0)


def test_the_best_score_of_each_task_is_known(api: Api) -> None:
    first, second = start(api, tasks=["mujoco-walker"], seed=8), start(api, tasks=["mujoco-walker"], seed=9)
    path, task = "/tasks/scores", "mujoco-walker"
    evaluate(first, "final", 1000, 0.97)
    evaluate(second, "periodic", 500, 0.98)
    best = api.http.get(path).json()["scores"][task]
    assert (best["score"], best["run_id"], best["env_steps"]) == (0.98, second.run_id, 500)
    evaluate(first, "final", 1000, 0.99)
    assert api.http.get(path).json()["scores"][task]["run_id"] == first.run_id
    api.learner.records.runs.delete(first.run_id)
    assert api.http.get(path).json()["scores"][task]["run_id"] == second.run_id


def test_groups_of_seeds_are_compared(api: Api) -> None:
    writers = [start(api, seed=seed) for seed in (1, 2, 3)]
    for number, writer in enumerate(writers):
        evaluate(writer, "random", 0, 0.1)
        evaluate(writer, "periodic", 503, 0.4 + number / 10)
    evaluate(writers[0], "final", 1001, 0.8)  # the others go on
    lone = start(api, seed=1, plan={"iterations": 2})
    groups = [",".join(writer.run_id for writer in writers), lone.run_id]
    found = api.http.get("/compare", params={"group": groups}).json()
    ours, theirs = found["groups"]
    assert [point["env_steps"] for point in ours["curve"]] == [0, 500, 1000]
    middle, last = ours["curve"][1:]
    assert (middle["value"], middle["seeds"]) == (pytest.approx(0.5), 3)
    assert 0.4 <= middle["low"] < 0.5 < middle["high"] <= 0.6
    assert (last["value"], last["low"], last["seeds"]) == (pytest.approx(0.8), None, 1)
    assert ours["final"]["value"] == pytest.approx(0.8)
    assert (theirs["curve"], theirs["final"], theirs["tasks"]) == ([], None, 2)
    assert found["differences"] == [{"setting": "plan.iterations", "values": [3, 2]}]


@pytest.mark.parametrize(("groups", "status"), [([], 422), ([","], 422), (["none-12345678"], 404), (["a"] * 21, 422)])
def test_wrong_comparisons_are_refused(api: Api, groups: list[str], status: int) -> None:
    reply = api.http.get("/compare", params={"group": groups})
    assert reply.status_code == status
    assert reply.json()["message"]


def test_what_is_missing_is_no_error_for_people(api: Api) -> None:
    assert api.http.get("/readyz").status_code == 503
    reply = api.http.get("/dependencies")
    assert reply.status_code == 200
    assert "replay" in reply.json()["missing"]
