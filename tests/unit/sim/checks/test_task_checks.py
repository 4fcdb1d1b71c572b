"""What `newt tasks check` and `newt tasks sheet` are made of: the check itself, its processes, the pictures."""

import dataclasses
import io
import json
import re
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from broken_tasks import DOMAIN, broken, process_of
from PIL import Image

from newt.tasks.corrected_scores import CORRECTED_SCORES
from newt.tasks.registry import Task, get_task
from newt.tasks.reports import TaskReport
from services.sim import domains
from services.sim.checks.isolation import Failed, for_each_task
from services.sim.checks.play import check_task
from services.sim.checks.sheet import MAX_SHEET_BYTES, picture, sheet


@pytest.fixture
def _broken_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(domains.MODULES, DOMAIN, "broken_tasks")


@pytest.mark.parametrize(
    ("task", "problem"),
    [
        (broken("obs-not-finite"), "an observation is not finite"),
        (broken("obs-float64"), r"observation float64\[3\], expected float32\[3\]"),
        (broken("none", obs_dim=4), r"observation float32\[3\], expected float32\[4\]"),
        (broken("reward-not-finite"), "a reward is not finite"),
        (broken("score"), r"score 1\.01, expected one in \[0, 1\]"),
        (broken("success"), "success 0.5, expected 0 or 1"),
        (broken("no-success"), "success nan, expected 0 or 1"),
        (broken("none", has_success=False), "expected NaN"),
        (broken("terminates"), "terminated after 3 steps, expected truncated after 5"),
        (broken("never-ends"), "still running after 6 steps"),
        (broken("none", episode_length=4), "truncated after 5 steps, expected truncated after 4"),
        (broken("differs"), "differs from the undrawn one from step 3 on"),
        (broken("corrects"), "a corrected score that the registry does not list"),
        (broken("none", corrected_score=CORRECTED_SCORES["cup-spin"]), "no corrected score, though the registry lists"),
        (broken("small-frame"), r"frame uint8\[64, 64, 3\]"),
        (broken("black"), "a frame has nothing but the value 0"),
        (broken("flickers"), "drawing the same state twice"),
        (broken("raises"), "RuntimeError: no model"),
        (broken("seedless"), "all seeds have the same episode"),
        (broken("global-generator"), "another one when the environment plays it again"),
        (broken("wild-expert"), r"the expert's float32\[2\] is no action of the task"),
        (broken("none", has_expert=False), "an expert that the registry does not list"),
    ],
    ids=lambda value: value.name if isinstance(value, Task) else "",
)
@pytest.mark.usefixtures("_broken_domain")
def test_faults_are_found(task: Task, problem: str) -> None:
    report = check_task(task)
    assert not report.ok
    assert len(report.problems) <= 3
    assert any(re.search(problem, found) for found in report.problems), report.problems


@pytest.mark.usefixtures("_broken_domain")
def test_a_task_without_faults() -> None:
    report = check_task(broken("none"))
    assert report.ok
    assert (report.obs_dim, report.length, report.score, report.corrected_score) == (3, 5, 1.0, 1.0)
    assert (report.step_ms > 0, report.frames_ok) == (True, True)


@pytest.mark.usefixtures("_broken_domain")
def test_a_missing_asset_is_no_fault() -> None:
    report = check_task(broken("missing-asset"))
    assert (report.problems, report.missing_asset, report.ok) == ([], "no mesh: run the download", False)
    assert picture(broken("missing-asset")) is None


def test_a_real_task() -> None:
    report = check_task(get_task("cup-spin"), seed=3)
    assert report.ok, report
    assert report.episode_return == pytest.approx(1000 * report.score)
    assert report.corrected_score == pytest.approx(report.score / 0.905)


@pytest.mark.timeout(120)
def test_a_process_serves_few_tasks_of_one_domain() -> None:
    tasks = [broken(f"task-{number}") for number in range(10)]
    tasks[1::2] = [dataclasses.replace(task, domain="other") for task in tasks[1::2]]
    tasks += [broken(f"task-{number}") for number in range(10, 15)]
    results = {task.name: (task.domain, result) for task, result in for_each_task(process_of, tasks, 3, 60)}
    assert set(results) == {task.name for task in tasks}
    served: dict[object, list[str]] = {}
    for domain, process in results.values():
        served.setdefault(process, []).append(domain)
    assert sorted(served.values()) == [[DOMAIN] * 2, [DOMAIN] * 8, ["other"] * 5]


@pytest.mark.timeout(120)
def test_what_ends_a_process_costs_one_task() -> None:
    names = ["first", "dies", "second", "exits", "raises", "hangs", "third"]
    limit_s = 15  # Enough to start a process on a busy machine.
    tasks = [broken(name) for name in names]
    results = {task.name: result for task, result in for_each_task(process_of, tasks, 1, limit_s)}
    assert list(results) == names
    assert [name for name, result in results.items() if isinstance(result, int)] == ["first", "second", "third"]
    assert results["dies"] == Failed("its process died of SIGSEGV; its last words:\nthe driver's last words")
    assert results["exits"] == Failed("its process ended with status 3")
    assert results["raises"] == Failed("RuntimeError: no model")
    assert results["hangs"] == Failed("not done after 15 s")


def test_a_sheet_has_every_picture_in_order() -> None:
    colours = {f"task-{number}": (number * 25, 255 - number * 25, 90) for number in range(9)}
    frames: dict[str, np.ndarray | None] = {
        name: np.full((224, 224, 3), colour, np.uint8) for name, colour in colours.items()
    }
    encoded = sheet({**frames, "missing": None})
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    found = [colour for _, colour in sorted(image.getcolors(1 << 20) or [], reverse=True)][: len(colours) + 2]
    assert {*colours.values(), (255, 255, 255), (225, 225, 225)} == set(found)
    middle = image.width // 2
    assert image.getpixel((100, 100)) == colours["task-0"]
    assert image.getpixel((middle + 10, 100)) in colours.values()


def test_a_sheet_of_noise_is_small_enough() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (224, 224, 3), np.uint8)
    encoded = sheet({f"task-{number}": noise for number in range(20)})
    assert len(encoded) <= MAX_SHEET_BYTES
    assert Image.open(io.BytesIO(encoded)).width > 400


def test_the_process_tells_json_lines_alone_whatever_simulators_print() -> None:
    names = ["pygame-pong", "mujoco-reacher"]  # pygame greets on standard output
    command = [sys.executable, "-m", "services.sim.checks", "play", "--seed", "1", *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    reports = [TaskReport(**line["report"]) for line in lines]
    assert sorted(line["task"] for line in lines) == sorted(names)
    assert all(report.ok for report in reports), reports


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_the_process_leaves_none_behind(end: signal.Signals) -> None:
    command = [sys.executable, "-m", "services.sim.checks", "experts", "--episodes", "100000", "lunarlander-land"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not (below := psutil.Process(process.pid).children(recursive=True)):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(end)
        assert process.wait(30) == 128 + end
    assert psutil.wait_procs(below, 10)[1] == []
