"""The demonstrations of a run: its sets exist, the scripted one is filled, and what is missing is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog

from newt.client.buffers import HeldDemoSet
from newt.errors import NotFoundError
from newt.runs.spec import RunSpec
from services.learner.demonstrating.experts import collect_scripted
from services.learner.demonstrating.features import add_features
from services.learner.records.writer import RunWriter
from services.learner.waiting import RunFailedError, loosely
from services.learner.worker.connections import Services

log = structlog.get_logger(__name__)


class DemoProvider:
    """Sees to the demonstrations of one run.

    Args:
        services: Simulators and replay.
        spec: Spec of the run.
        writer: Writer of the run's events.
    """

    def __init__(self, services: Services, spec: RunSpec, writer: RunWriter) -> None:
        self._services, self._spec, self._writer = services, spec, writer

    def provide(self, on_progress: Callable[[int, int], None]) -> list[str]:
        """Fills the scripted set as far as the experts can, and tells which tasks stay without demonstrations.

        Args:
            on_progress: Called with scripted episodes stored and wanted.

        Returns:
            Names of the sets to draw from. A run that has its buffer already keeps the sets that it started with.

        Raises:
            RunFailedError: A set is gone, or a run that pretrains has no demonstration at all.
        """
        begun = self._begun_with()
        if begun is not None:
            return begun
        spec, given_up = self._spec, dict[str, int]()
        experts = spec.expert_tasks()
        if experts:
            given_up = collect_scripted(
                self._services,
                spec.scripted_set(with_features=False),
                experts,
                spec.demos.scripted_episodes,
                spec.demos.disturbance,
                on_progress,
            )
            if spec.image_dim():
                self._require_own_encoder(spec.scripted_set())
                add_features(
                    self._services, spec.scripted_set(with_features=False), spec.scripted_set(), experts, on_progress
                )
        held = {demo_set.name: demo_set for demo_set in self._held()}
        gone = [name for name in spec.demos.sets if name not in held]
        if gone:
            raise RunFailedError(
                f"demonstration set {', '.join(gone)} does not exist any more; make it again under this name and "
                "resume the run, or start a run without it"
            )
        names = [name for name in spec.demo_sets() if name in held]
        episodes = dict.fromkeys((task.name for task in spec.task_list()), 0)
        for name in names:
            self._require_own_encoder(name)
            for task in held[name].tasks:
                # Replay leaves out demonstrations without the run's features.
                if task.task in episodes and (not spec.image_dim() or task.image_dim):
                    episodes[task.task] += task.episodes
        self._tell_missing(episodes, given_up)
        return names

    def _begun_with(self) -> list[str] | None:
        """The sets of the run's buffer; None if it has none yet."""
        try:
            buffer = self._services.replay.get_buffer(self._writer.run_id)
        except NotFoundError:
            return None
        return list(buffer.config.demo_sets)

    def _require_own_encoder(self, name: str) -> None:
        """Refuses features of another encoder than the run's."""
        vision = self._services.vision
        if vision is None:
            return
        held = next((demo_set for demo_set in self._held() if demo_set.name == name), None)
        for task in held.tasks if held else ():
            own = (task.image_dim, task.image_encoder or vision.encoder.name) == (vision.image_dim, vision.encoder.name)
            if task.image_dim and task.task in {mine.name for mine in self._spec.task_list()} and not own:
                raise RunFailedError(
                    f"demonstration set {name} has {task.image_dim} image features of "
                    f"{task.image_encoder or 'an unknown encoder'} for {task.task}, the run sees {vision.image_dim} of "
                    f"{vision.encoder.name}; compute them anew (`newt demos features`), or delete that set"
                )

    def _held(self) -> list[HeldDemoSet]:
        return self._services.replay.list_demo_sets()

    def _tell_missing(self, episodes: Mapping[str, int], given_up: Mapping[str, int]) -> None:
        """Warns of tasks without demonstrations, and of those with fewer than wanted."""
        reasons = {}
        for task in self._spec.task_list():
            have = episodes[task.name]
            if task.name in given_up:
                wanted = self._spec.demos.scripted_episodes
                got = wanted - given_up[task.name]
                reasons[task.name] = f"{have} (its scripted expert brought {got} of {wanted}: it fails too often)"
            elif not have:
                expert = "" if task.has_expert and not self._spec.demos.scripted_episodes else ", no scripted expert"
                features = " with image features" if self._spec.image_dim() else ""
                reasons[task.name] = f"0 (none{features} in the run's sets{expert})"
        if not reasons:
            return
        none = [name for name, have in episodes.items() if not have]
        detail = ", ".join(f"{name} {reason}" for name, reason in reasons.items())
        log.warning("demos_missing", tasks=reasons)
        if len(none) == len(episodes) and self._spec.pretrains():
            raise RunFailedError(
                f"no task of the run has demonstrations to pretrain on: {detail}. Name a set that has some in "
                "demos.sets, add a task whose expert succeeds, or set algorithm.pretraining to false"
            )
        message = (
            f"{len(none)} of {len(episodes)} tasks have no demonstrations and train without; demonstrations by task "
            f"where some are missing: {detail}"
        )
        data = {"episodes": {name: episodes[name] for name in reasons}}
        loosely(lambda: self._writer.event("warning", message, data))
