"""The page in Chromium, and what open pages cost the API: a run of 200 tasks with 10,000 rows of metrics."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import numpy as np
from playwright.sync_api import Browser, sync_playwright

from bench.figures import Figure, Spread, Value
from bench.measure import Effort
from newt.local import ports, redis_server
from newt.runs.record import RunState, TaskProgress
from newt.runs.spec import RunSpec
from services.learner.records.progress import CollectorProgress, TrainerProgress
from services.learner.records.runs import new_id
from services.learner.records.store import Records
from services.learner.records.writer import RunWriter

_CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
_START_TIMEOUT_S = 60.0
# All of it is there: the curve on the screen is drawn, and so are the small charts in sight.
_USABLE = """tasks => document.querySelectorAll('.taskcard').length === tasks
  && document.querySelector('.chart.big canvas') ? performance.now() : false"""
_PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? false"


def run(effort: Effort) -> Iterator[Figure]:
    """First paint, a large run, and latencies of the API without and with open pages, which follow that run."""
    repetitions, requests = effort.pick(full=9, quick=3, tiny=1), effort.pick(full=400, quick=100, tiny=10)
    pages, rows = effort.pick(full=50, quick=50, tiny=2), effort.pick(full=10_000, quick=10_000, tiny=400)
    with tempfile.TemporaryDirectory() as folder, _served(Path(folder)) as (address, records):
        writer = _large_run(records, Path(folder), rows)
        tasks = len(writer.get().tasks)
        with _browser() as browser:
            paints = [_open(browser, f"{address}/#/", _PAINTED, tasks) for _ in range(repetitions)]
            yield Value("page.first_paint", "the list of runs, nothing cached", "ms", Spread.of(paints), at_most=500)
            place = f"{address}/#/run/{writer.run_id}"
            large = [_open(browser, place, _USABLE, tasks) for _ in range(repetitions)]
            what = f"a run of {tasks} tasks, {rows:,} rows of metrics: its curves are drawn; nothing cached"
            yield Value("page.run_usable", what, "ms", Spread.of(large), at_most=2000)
            for count in (0, pages):
                with _told(writer), _opened(browser, place, tasks, count):
                    times = _latencies(f"{address}/runs/{writer.run_id}", requests)
                what = f"GET /runs/RUN while {count} pages of the run are open in Chromium here; it tells its progress"
                yield from _quantiles(f"page.api.{count}_open_pages", what, times)
        for count in (0, pages):
            with _told(writer), _followed(address, writer, count):
                times = _latencies(f"{address}/runs/{writer.run_id}", requests)
            what = f"GET /runs/RUN while {count} programs follow the run, as pages elsewhere do; it tells its progress"
            yield from _quantiles(f"page.api.{count}_pages", what, times)


def _quantiles(name: str, what: str, times: list[float]) -> Iterator[Figure]:
    for quantile, share in (("p50", 0.5), ("p99", 0.99)):
        value = float(np.quantile(times, share))
        yield Value(f"{name}.{quantile}", what, "ms", Spread(value, value, value))


def _open(browser: Browser, place: str, ready: str, tasks: int) -> float:
    """Milliseconds from the first request until something is there."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    try:
        page = context.new_page()
        page.goto(place)
        found: float = page.wait_for_function(ready, arg=tasks, timeout=60_000).json_value()
        return found
    finally:
        context.close()


def _latencies(url: str, requests: int) -> list[float]:
    """Milliseconds of requests, one after the other with a pause between, as a program asks."""
    times = []
    with httpx.Client(trust_env=False) as client:
        for _ in range(requests):
            start = time.perf_counter()
            client.get(url).raise_for_status()
            times.append(1000 * (time.perf_counter() - start))
            time.sleep(0.02)
    return times


@contextmanager
def _opened(browser: Browser, place: str, tasks: int, count: int) -> Iterator[None]:
    """So many pages are open and drawn, each of a person of its own: browsers allow few connections to a host."""
    with ExitStack() as stack:
        for _ in range(count):
            context = browser.new_context(viewport={"width": 1280, "height": 900})
            stack.callback(context.close)
            page = context.new_page()
            page.goto(place)
            page.wait_for_function(_USABLE, arg=tasks, timeout=60_000)
        yield


@contextmanager
def _told(writer: RunWriter) -> Iterator[None]:
    """The run tells its progress every second."""
    over = threading.Event()

    def tell() -> None:
        for step in range(1_000_000):
            _progress(writer, 90_000 + step)
            if over.wait(1.0):
                return

    thread = threading.Thread(target=tell)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def _followed(address: str, writer: RunWriter, pages: int) -> Iterator[None]:
    """So many clients follow the run's events."""
    over, ready = threading.Event(), threading.Barrier(pages + 1)

    def follow() -> None:
        # No timeout: the next event is there within a second, and the last of them sees that it is over.
        events = f"{address}/runs/{writer.run_id}/events"
        with httpx.Client(trust_env=False, timeout=None) as client, client.stream("GET", events) as reply:
            ready.wait(_START_TIMEOUT_S)
            for _ in reply.iter_raw():
                if over.is_set():
                    return

    threads = [threading.Thread(target=follow) for _ in range(pages)]
    for thread in threads:
        thread.start()
    ready.wait(_START_TIMEOUT_S)
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _progress(writer: RunWriter, env_steps: int) -> None:
    tasks = {task: TaskProgress(last_score=0.5, last_return=9.0) for task in writer.get().tasks}
    collected = CollectorProgress(stage="collecting", env_steps=env_steps, env_steps_per_s=100, tasks=tasks)
    writer.progress("collector", collected)
    writer.progress("trainer", TrainerProgress(attempt=writer.attempt, updates=env_steps, losses={"value_loss": 2.0}))


def _large_run(records: Records, folder: Path, rows: int) -> RunWriter:
    spec = RunSpec.model_validate({"preset": "laptop", "tasks": ["mmbench"], "name": "large"})
    run_id = new_id(spec)
    tasks = records.runs.create(run_id, spec, folder / run_id).tasks
    attempt = records.runs.begin(run_id)
    assert attempt is not None
    writer = RunWriter(records, run_id, attempt)
    writer.enter(RunState.TRAINING)
    losses = ("total_loss", "consistency_loss", "reward_loss", "value_loss", "policy_loss", "grad_norm", "td_target")
    for number in range(rows // 2):
        writer.metrics("trainer", 10 * number, number, dict.fromkeys(losses, 1 / (1 + number)))
        writer.metrics("collector", 10 * number, number, {f"score/{tasks[number % len(tasks)]}": number / rows})
    _progress(writer, 90_000)
    return writer


@contextmanager
def _served(folder: Path) -> Iterator[tuple[str, Records]]:
    with ExitStack() as stack:
        redis = redis_server.start(folder / "redis", ports.free_port())
        stack.callback(redis.stop)
        port = ports.free_port()
        argv = [sys.executable, "-m", "bench.page_server", redis.url, str(folder / "data"), str(port)]
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        address, deadline = f"http://{ports.HOST}:{port}", time.monotonic() + _START_TIMEOUT_S
        while True:
            try:
                httpx.get(f"{address}/healthz", trust_env=False).raise_for_status()
                break
            except httpx.HTTPError as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("the learner's API did not start") from error
                time.sleep(0.1)
        yield address, Records.connect(redis.url)


@contextmanager
def _browser() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, _CHROMIUM)), None)
    if path is None:
        raise RuntimeError("no Chromium here; scripts/system-packages.sh --dev installs it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()
