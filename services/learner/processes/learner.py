"""What the parent process of the learner is made of."""

from __future__ import annotations

from dataclasses import dataclass

from services.learner.checkpoints.library import CheckpointLibrary
from services.learner.processes.demo_sets import DemoSets
from services.learner.processes.demos import DemoKeeper
from services.learner.processes.dependencies import Dependencies
from services.learner.processes.evaluations import EvaluationKeeper
from services.learner.processes.plays import PlayKeeper
from services.learner.processes.runs import RunKeeper
from services.learner.processes.served_tasks import ServedTasks
from services.learner.records.store import Records
from services.learner.settings import LearnerSettings


@dataclass(frozen=True)
class Learner:
    """Its parts, as the REST API uses them.

    Attributes:
        settings: Settings of the learner.
        redis_url: URL of the records, with its password.
        records: Records of runs, evaluations and collections of demonstrations.
        runs: Keeps the processes of runs.
        evaluations: Keeps evaluations on request.
        demos: Keeps collections of demonstrations.
        demo_sets: The demonstration sets that there are.
        library: The checkpoints that there are.
        dependencies: Which services can be reached.
        served: What the simulators play.
        plays: Keeps plays: somebody watches, or plays.
    """

    settings: LearnerSettings
    redis_url: str
    records: Records
    runs: RunKeeper
    evaluations: EvaluationKeeper
    demos: DemoKeeper
    demo_sets: DemoSets
    library: CheckpointLibrary
    dependencies: Dependencies
    served: ServedTasks
    plays: PlayKeeper
