"""What a run's own processes write to its record."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Literal

from newt.runs.base import now
from newt.runs.record import ACTIVE, Evaluation, Run, RunState
from services.learner.progress import CollectorProgress, TrainerProgress
from services.learner.store import RunStore

Part = Literal["trainer", "collector"]


class RunWriter:
    """What a run's own process may write, for as long as its attempt is the newest (else SupersededError).

    Events and metrics are the exception: they are a history, to which a late process may still add.
    """

    def __init__(self, store: RunStore, run_id: str, attempt: int) -> None:
        self.run_id, self.attempt = run_id, attempt
        self._store = store

    def get(self) -> Run:
        """The whole record."""
        return self._store.get(self.run_id)

    def trainer(self) -> TrainerProgress:
        """What the trainer last said in this attempt."""
        return TrainerProgress.parse(self._store.field(self.run_id, "trainer"))

    def progress(self, part: Part, progress: TrainerProgress | CollectorProgress) -> None:
        """Replaces one part of the progress."""
        self._store.write(self.run_id, {part: progress.model_dump_json()}, attempt=self.attempt)

    def enter(self, state: RunState) -> bool:
        """Moves between the active states; False if the run has been cancelled or has failed."""
        if self.get().state is state:
            return True
        return self._store.transition(self.run_id, state, ACTIVE, attempt=self.attempt)

    def succeed(self) -> bool:
        """Ends the run well."""
        finished = now().isoformat()
        return self._store.transition(
            self.run_id, RunState.SUCCEEDED, ACTIVE, attempt=self.attempt, fields={"finished_at": finished}
        )

    def fail(self, error: str) -> bool:
        """Ends the run with a cause."""
        return self._store.fail(self.run_id, error, attempt=self.attempt)

    def next_weights_version(self) -> int:
        """A version above all that the run has had, over all attempts."""
        return self._store.bump(self.run_id, self.attempt, "issued_version")

    def published(self, version: int) -> None:
        """Notes the newest version that planners can get."""
        self._store.write(self.run_id, {"weights_version": version}, attempt=self.attempt)

    def event(self, kind: str, message: str, data: Mapping[str, Any] | None = None) -> None:
        """Appends to the run's events."""
        self._store.add_event(self.run_id, kind, message, data)

    def metrics(self, source: str, env_steps: int, updates: int, values: Mapping[str, float]) -> None:
        """Appends a row to the metrics history; values that are not finite are left out."""
        finite = {name: round(float(value), 6) for name, value in values.items() if math.isfinite(value)}
        fields = {"source": source, "env_steps": env_steps, "updates": updates, "values": json.dumps(finite)}
        self._store.add_metrics(self.run_id, fields)

    def evaluation(self, evaluation: Evaluation) -> None:
        """Appends an evaluation, and its event; harmless to repeat."""
        self._store.add_evaluation(self.run_id, self.attempt, evaluation)

    def evaluations(self) -> list[Evaluation]:
        """All evaluations so far, in order."""
        return self._store.evaluations(self.run_id)

    def videos(self) -> dict[str, str]:
        """Names of the videos by task."""
        return self._store.videos(self.run_id)

    def set_videos(self, videos: Mapping[str, str]) -> None:
        """Stores the names of the videos."""
        self._store.write(self.run_id, {"videos": json.dumps(dict(videos))}, attempt=self.attempt)
