"""What the parent process of the learner is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from services.learner.checkpoints.library import CheckpointLibrary
from services.learner.processes.demo_sets import DemoSets
from services.learner.processes.demos import DemoKeeper
from services.learner.processes.dependencies import Dependencies
from services.learner.processes.evaluations import EvaluationKeeper
from services.learner.processes.jobs import JobKeeper
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

    @classmethod
    def build(
        cls,
        settings: LearnerSettings,
        redis_url: str,
        records: Records,
        retire: Callable[[str], None] = lambda model_id: None,
    ) -> Learner:
        """Puts the parts together; nothing is started.

        Args:
            settings: Settings of the learner.
            redis_url: URL of the records, with its password.
            records: Records that are read and written there.
            retire: Takes a model that nobody trains any more from the planners.
        """
        library, dependencies = CheckpointLibrary(settings.data_dir), Dependencies(records, settings)
        demo_sets = DemoSets(settings.replay, records)
        return cls(
            settings=settings,
            redis_url=redis_url,
            records=records,
            runs=RunKeeper(records, settings, on_ended=retire),
            evaluations=EvaluationKeeper(records, settings, library),
            demos=DemoKeeper(records, settings, demo_sets, dependencies, retire=retire),
            demo_sets=demo_sets,
            library=library,
            dependencies=dependencies,
            served=ServedTasks(settings.sims),
            plays=PlayKeeper(settings, library, dependencies),
        )

    @property
    def keepers(self) -> tuple[PlayKeeper | JobKeeper, ...]:
        """What has processes, in the order in which it starts and stops."""
        return self.plays, self.evaluations, self.demos, self.runs
