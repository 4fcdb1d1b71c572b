"""A collection of demonstrations: `python -m services.learner.demonstrating.worker --job NAME --attempt N`.

It says in the record of the collection how far it is; the last thing that it does is to say that the set is whole. One
that ends before leaves episodes behind that the learner removes, so that no part of a set passes for a whole one.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import structlog

from newt.acting.trained import as_trained
from newt.agent.checkpoints import Checkpoint
from newt.errors import NotFoundError
from newt.runs.demos import AgentDemosRequest, DemoCollection, DemoYield, FeatureDemosRequest, ScriptedDemosRequest
from newt.runs.facts import tasks_of
from services.learner.checkpoints.folder import CheckpointFolder
from services.learner.demonstrating.agent import collect_from_agent
from services.learner.demonstrating.experts import collect_scripted
from services.learner.demonstrating.features import add_features
from services.learner.playing.served import served
from services.learner.playing.sight import Vision
from services.learner.waiting import RunFailedError
from services.learner.worker.connections import Services
from services.learner.worker.main import JobContext, job_child
from services.learner.worker.reporter import REPORT_EVERY_S, every

log = structlog.get_logger(__name__)


class DemoWorker:
    """One collection.

    Args:
        context: Context of the process.
    """

    def __init__(self, context: JobContext[DemoCollection]) -> None:
        self._context = context
        self._settings, self._collection, self._stop = context.settings, context.job, context.stop
        self._tasks = tasks_of(self._collection.tasks, self._collection.task_facts)
        self._share = 0.0

    def run(self) -> dict[str, DemoYield]:
        """Collects; returns what came out, by task.

        Raises:
            RunFailedError: There is not one demonstration, or something stayed away.
            Stopped: The process must stop.
        """
        domains, vision = {task.domain for task in self._tasks}, self._vision()
        with (
            Services.connect(self._settings, domains, self._stop, vision=vision) as services,
            every(REPORT_EVERY_S, lambda: self._report(services), self._stop),
        ):
            services.check_sims(self._tasks)
            self._remove_remains(services)
            request = self._collection.request
            if isinstance(request, AgentDemosRequest):
                yields = self._from_agent(services, request)
            elif isinstance(request, FeatureDemosRequest):
                yields = self._features(services, request)
            else:
                yields = self._scripted(services, request)
        if not any(found.kept for found in yields.values()):
            reasons = "; ".join(f"{task}: {found.missing}" for task, found in yields.items())
            raise RunFailedError(f"no demonstration was found for any task, nothing is kept ({reasons})")
        return yields

    def _report(self, services: Services) -> None:
        """Tells how far it is and what it waits for."""
        self._context.writer.report(self._share, services.patience.waiting_on)

    def _played(self, done: int, total: int) -> None:
        self._share = done / max(1, total)

    def _vision(self) -> Vision | None:
        """What the agent sees with, if it is one with images."""
        request = self._collection.request
        if isinstance(request, FeatureDemosRequest):
            return Vision.load(self._settings, frames=request.frames)
        return Vision.of(self._settings, self._checkpoint()) if isinstance(request, AgentDemosRequest) else None

    def _agent(self) -> tuple[str, str]:
        """Run and checkpoint of the agent that plays."""
        run_id, name = self._collection.run_id, self._collection.checkpoint
        if run_id is None or name is None:
            raise RunFailedError(f"the record of {self._collection.name} names no agent; ask for the set again")
        return run_id, name

    def _checkpoint(self) -> Checkpoint:
        run_id, name = self._agent()
        return CheckpointFolder(self._settings.folder.run(run_id)).load(name)

    def _remove_remains(self, services: Services) -> None:
        """Deletes what an earlier attempt left; nobody else can have made the set, because the learner has looked."""
        name = self._collection.name
        try:
            services.replay.delete_demo_set(name)
        except NotFoundError:
            return
        log.info("remains_removed", demo_set=name)

    def _scripted(self, services: Services, request: ScriptedDemosRequest) -> dict[str, DemoYield]:
        missing = collect_scripted(
            services, request.name, self._tasks, request.episodes, request.disturbance, self._played
        )
        wanted = request.episodes
        return {
            task.name: DemoYield(
                wanted=wanted,
                kept=wanted - missing.get(task.name, 0),
                missing="its scripted expert fails too often" if task.name in missing else None,
            )
            for task in self._tasks
        }

    def _features(self, services: Services, request: FeatureDemosRequest) -> dict[str, DemoYield]:
        left_out = add_features(services, request.source, request.name, self._tasks, self._played)
        (held,) = services.replay.list_demo_sets(request.source)
        return {
            task.task: DemoYield(
                wanted=task.episodes,
                kept=task.episodes - left_out[task.task][0] if task.task in left_out else task.episodes,
                missing=left_out[task.task][1] if task.task in left_out else None,
            )
            for task in held.tasks
            if task.task in self._collection.tasks
        }

    def _from_agent(self, services: Services, request: AgentDemosRequest) -> dict[str, DemoYield]:
        checkpoint = self._checkpoint()

        def on_progress(share: float) -> None:
            self._share = share

        plan, guidance = as_trained(checkpoint, checkpoint.table.names)
        with served(self._settings, checkpoint.model(), plan, guidance, self._collection.model_id) as model:
            return collect_from_agent(services, model, self._tasks, request, on_progress)


def work(context: JobContext[DemoCollection]) -> dict[str, Any]:
    """The body of the process."""
    start = time.monotonic()
    yields = DemoWorker(context).run()
    missing = {task: found.missing for task, found in yields.items() if found.missing}
    if missing:
        log.warning("demos_missing", tasks=missing)
    log.info("collection_done", seconds=round(time.monotonic() - start, 1))
    return {"yields": yields, "unfinished": False}


if __name__ == "__main__":
    sys.exit(
        job_child("demo_worker", work, lambda records: records.demos, lambda folder, name: folder.demos_lock(name))
    )
