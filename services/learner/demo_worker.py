"""A collection of demonstrations: `python -m services.learner.demo_worker --set NAME`.

It says in the record of the collection how far it is; the last thing that it does is to say that the set is whole. One
that ends before leaves episodes behind that the learner removes, so that no part of a set passes for a whole one.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time

import structlog

from newt import logs, trace
from newt.agent.checkpoints import Checkpoint
from newt.errors import NewtError, NotFoundError
from newt.runs.demos import AgentDemosRequest, DemoCollection, DemoYield, FeatureDemosRequest, ScriptedDemosRequest
from newt.security import redis_address
from newt.tasks.registry import get_task
from services.learner.agent_demos import collect_from_agent
from services.learner.checkpoints import CheckpointFolder
from services.learner.child import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_STOPPED,
    RunFailedError,
    StopFlag,
    Stopped,
    lock_file,
    loosely,
    patiently,
)
from services.learner.demo_features import add_features
from services.learner.demo_jobs import lock_path, model_id_of
from services.learner.scripted_demos import collect_scripted
from services.learner.served_checkpoint import served
from services.learner.services import Services
from services.learner.settings import LearnerSettings
from services.learner.sight import Vision
from services.learner.store import RunStore

REPORT_EVERY_S = 1.0

log = structlog.get_logger(__name__)


class DemoWorker:
    """One collection.

    Args:
        settings: Of the learner.
        store: With the record.
        collection: What is to be collected.
        stop: Ends it.
    """

    def __init__(self, settings: LearnerSettings, store: RunStore, collection: DemoCollection, stop: StopFlag) -> None:
        self._settings, self._store, self._collection, self._stop = settings, store, collection, stop
        self._tasks = [get_task(name) for name in collection.tasks]

    def run(self) -> DemoCollection:
        """Collects; returns the record of the whole set.

        Raises:
            RunFailedError: There is not one demonstration, or something stayed away.
            Stopped: The process must stop.
        """
        domains, vision = {task.domain for task in self._tasks}, self._vision()
        with Services.connect(self._settings, domains, self._stop, vision=vision) as services:
            services.check_sims(self._tasks)
            self._remove_remains(services)
            request = self._collection.request
            with _Reports(self._store, self._collection, services) as reports:
                if isinstance(request, AgentDemosRequest):
                    yields = self._from_agent(services, request, reports)
                elif isinstance(request, FeatureDemosRequest):
                    yields = self._features(services, request, reports)
                else:
                    yields = self._scripted(services, request, reports)
        if not any(found.kept for found in yields.values()):
            reasons = "; ".join(f"{task}: {found.missing}" for task, found in yields.items())
            raise RunFailedError(f"no demonstration was found for any task, nothing is kept ({reasons})")
        done = {"state": "succeeded", "progress": 1.0, "yields": yields, "unfinished": False}
        return self._collection.model_copy(update=done)

    def _vision(self) -> Vision | None:
        """What the agent sees with, if it is one with images."""
        request = self._collection.request
        if isinstance(request, FeatureDemosRequest):
            return Vision.load(self._settings, frames=request.frames)
        return Vision.of(self._settings, self._checkpoint()) if isinstance(request, AgentDemosRequest) else None

    def _checkpoint(self) -> Checkpoint:
        run_id, name = self._collection.run_id, self._collection.checkpoint
        assert run_id is not None  # the API fills in both
        assert name is not None
        return CheckpointFolder(self._settings.data_dir / "runs" / run_id).load(name)

    def _remove_remains(self, services: Services) -> None:
        """Deletes what an earlier attempt left; nobody else can have made the set, because the learner has looked."""
        name = self._collection.name
        try:
            services.patience.call(
                services.replay_name,
                lambda: services.replay.delete_demo_set(name),
                self._settings.dependency_timeout_s,
            )
        except NotFoundError:
            return
        log.info("remains_removed", demo_set=name)

    def _scripted(self, services: Services, request: ScriptedDemosRequest, reports: _Reports) -> dict[str, DemoYield]:
        def on_progress(done: int, total: int) -> None:
            reports.share = done / max(1, total)

        missing = collect_scripted(services, request.name, self._tasks, request.episodes, on_progress)
        wanted = request.episodes
        return {
            task.name: DemoYield(
                wanted=wanted,
                kept=wanted - missing.get(task.name, 0),
                missing="its scripted expert fails too often" if task.name in missing else None,
            )
            for task in self._tasks
        }

    def _features(self, services: Services, request: FeatureDemosRequest, reports: _Reports) -> dict[str, DemoYield]:
        def on_progress(done: int, total: int) -> None:
            reports.share = done / max(1, total)

        left_out = add_features(services, request.source, request.name, self._tasks, on_progress)
        (held,) = services.patience.call(services.replay_name, lambda: services.replay.list_demo_sets(request.source))
        return {
            task.task: DemoYield(
                wanted=task.episodes,
                kept=task.episodes - left_out[task.task][0] if task.task in left_out else task.episodes,
                missing=left_out[task.task][1] if task.task in left_out else None,
            )
            for task in held.tasks
            if task.task in self._collection.tasks
        }

    def _from_agent(self, services: Services, request: AgentDemosRequest, reports: _Reports) -> dict[str, DemoYield]:
        run_id, name = self._collection.run_id, self._collection.checkpoint
        assert run_id is not None  # the API fills in both
        assert name is not None
        checkpoint = self._checkpoint()

        def on_progress(share: float) -> None:
            reports.share = share

        run = self._store.get(run_id)
        plan, model_id = run.spec.plan_settings(), model_id_of(self._collection)
        with served(self._settings, checkpoint.model(), plan, model_id) as model:
            return collect_from_agent(services, model, self._tasks, request, on_progress)


class _Reports:
    """Writes the progress of a collection about once a second.

    Attributes:
        share: Of the work that is done.
    """

    def __init__(self, store: RunStore, collection: DemoCollection, services: Services) -> None:
        self.share = 0.0
        self._store, self._collection, self._services = store, collection, services
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="report", daemon=True)

    def __enter__(self) -> _Reports:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()

    def _loop(self) -> None:
        said: tuple[float, str | None] = (0.0, None)
        while not self._over.wait(REPORT_EVERY_S):
            waiting_on = self._services.patience.waiting_on
            if (self.share, waiting_on) == said:
                continue
            said = (self.share, waiting_on)
            now = {"progress": round(min(self.share, 1.0), 4), "waiting_on": waiting_on}
            self._report(self._collection.model_copy(update=now))

    def _report(self, collection: DemoCollection) -> None:
        loosely(lambda: self._store.put_demo_collection(collection))


def main() -> int:
    """Collects, records what came out, returns the exit status."""
    parser = argparse.ArgumentParser(prog="demo_worker")
    parser.add_argument("--set", required=True)
    name = parser.parse_args().set
    settings = LearnerSettings()
    logs.configure("demo_worker", settings.log_level)
    structlog.contextvars.bind_contextvars(demo_set=name)
    stop = StopFlag()
    stop.watch()
    store = RunStore.connect(redis_address(settings.redis_url))
    try:
        lock = lock_file(lock_path(settings, name), stop)
        collection = patiently(lambda: store.demo_collection(name), stop)
    except Stopped:
        return EXIT_STOPPED
    if collection is None or collection.state != "collecting":
        return EXIT_STOPPED
    trace.follow_in_process(collection.request_id, collection.run_id)
    log.info("process_started")
    with lock:
        return _work(settings, store, collection, stop)


def _work(settings: LearnerSettings, store: RunStore, collection: DemoCollection, stop: StopFlag) -> int:
    start = time.monotonic()
    try:
        done = DemoWorker(settings, store, collection, stop).run()
        patiently(lambda: store.put_demo_collection(done), stop)
    except Stopped:
        return EXIT_STOPPED
    except (RunFailedError, NewtError) as error:
        log.error("collection_failed", error=str(error))
        failed = collection.model_copy(update={"state": "failed", "error": str(error)})
        loosely(lambda: store.put_demo_collection(failed))
        return EXIT_FAILED
    missing = {task: found.missing for task, found in done.yields.items() if found.missing}
    if missing:
        log.warning("demos_missing", tasks=missing)
    log.info("collection_done", seconds=round(time.monotonic() - start, 1))
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
