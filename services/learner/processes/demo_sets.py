"""The demonstration sets that there are: what replay holds, and how it was collected."""

from __future__ import annotations

import math
from collections.abc import Sequence

from newt.client.buffers import HeldDemos, HeldDemoSet
from newt.client.shards import Replay, replay_client
from newt.errors import CorruptDataError, InvalidInputError, NotFoundError, PreconditionError
from newt.runs.base import BrokenRecord
from newt.runs.demos import DemoCollection, DemoSetInfo, DemoSetList, DemoTaskInfo
from services.learner.records.broken import BrokenRecordError
from services.learner.records.store import Records

TIMEOUT_S = 2.0
DELETE_TIMEOUT_S = 20.0


class DemoSets:
    """Lists, shows, checks and deletes sets. Every method raises UnavailableError when replay does not answer.

    Args:
        replay: gRPC target of the replay service, or of several.
        records: Records of the collections, and of the runs that use sets.
    """

    def __init__(self, replay: str, records: Records) -> None:
        self._target, self._records = replay, records

    def list(self) -> DemoSetList:
        """All sets with their contents by task, and the collections that have stored nothing yet, or any more."""
        with self._replay() as replay:
            held = {demo_set.name: demo_set for demo_set in replay.list_demo_sets(timeout_s=TIMEOUT_S)}
        found = self._records.demos.list_all()
        collections = {
            collection.name: collection
            for collection in found.records
            # A whole set that replay does not have was deleted without our knowledge.
            if collection.name in held or collection.state != "succeeded"
        }
        infos = [
            _info(name, held.get(name), collections.get(name)) for name in sorted(held.keys() | collections.keys())
        ]
        broken = found.broken + [
            BrokenRecord(kind="demonstrations", id=name, error=f"{one.error}; DELETE /demos/{name} removes it")
            for name, one in held.items()
            if one.error
        ]
        unknown = {record.id for record in broken}  # nobody can tell whether they are whole
        infos = [info.model_copy(update={"usable": False}) if info.name in unknown else info for info in infos]
        return DemoSetList(demo_sets=infos, broken=broken)

    def get(self, name: str) -> DemoSetInfo:
        """One set. Raises NotFoundError."""
        for info in self.list().demo_sets:
            if info.name == name:
                return info
        raise NotFoundError(f"unknown demonstration set {name!r}; GET /demos lists all sets")

    def holds(self, name: str) -> bool:
        """Whether replay has a set of that name, whole or not."""
        try:
            with self._replay() as replay:
                return bool(replay.list_demo_sets(name, timeout_s=TIMEOUT_S))
        except NotFoundError:
            return False
        except CorruptDataError:
            return True

    def require_usable(self, names: Sequence[str], field: str = "demos.sets") -> None:
        """Raises InvalidInputError, which names the field, unless these sets may be used now."""
        if not names:
            return
        listed = self.list()
        known = {info.name: info for info in listed.demo_sets}
        broken = {record.id: record.error for record in listed.broken}
        for name in names:
            if name not in known:
                have = ", ".join(info.name for info in known.values() if info.usable) or "none"
                raise InvalidInputError(field, f"unknown set {name!r} (there are: {have})")
            if name in broken:
                raise InvalidInputError(field, f"set {name!r} cannot be used: {broken[name]}")
            collection = known[name].collection
            if collection is not None and not known[name].usable:
                state = collection.state
                now = "under way; wait for it" if state == "collecting" else f"{state}; ask for it again"
                raise InvalidInputError(field, f"set {name!r} is not whole: its collection is {now}")

    def delete(self, name: str) -> int:
        """Removes a set; returns the number of its episodes.

        Raises:
            NotFoundError: No such set.
            PreconditionError: It is being collected, or a run uses it.
        """
        try:
            collection, known = self._records.demos.find(name), False
        except BrokenRecordError:
            collection, known = None, True
        if collection is not None and collection.state == "collecting":
            raise PreconditionError(f"set {name!r} is being collected; cancel that first (POST /demos/{name}/cancel)")
        users = [run.id for run in self._records.runs.list_unfinished().records if name in run.spec.demo_sets()]
        if users:
            raise PreconditionError(f"set {name!r} is used by run {', '.join(users)}; wait for its end, or cancel it")
        episodes = 0
        try:
            with self._replay() as replay:
                episodes = replay.delete_demo_set(name, timeout_s=DELETE_TIMEOUT_S)
        except NotFoundError:
            if collection is None and not known:
                raise NotFoundError(f"unknown demonstration set {name!r}; GET /demos lists all sets") from None
        except PreconditionError as error:
            raise PreconditionError(
                f"{error} (DELETE /runs/<run>/episodes does; the run keeps its checkpoints and results)"
            ) from error
        self._records.demos.delete(name)
        return episodes

    def remove_remains(self, name: str) -> None:
        """Removes what a collection that did not succeed has stored; nothing is no error."""
        try:
            with self._replay() as replay:
                replay.delete_demo_set(name, timeout_s=DELETE_TIMEOUT_S)
        except NotFoundError:
            return

    def delete_buffer(self, run_id: str) -> int:
        """Removes a run's online episodes; returns how many."""
        with self._replay() as replay:
            return replay.delete_buffer(run_id, timeout_s=DELETE_TIMEOUT_S)

    def _replay(self) -> Replay:
        return replay_client(self._target)


def _info(name: str, held: HeldDemoSet | None, collection: DemoCollection | None) -> DemoSetInfo:
    # The remains of a collection are gone: what has this name now was stored by somebody else.
    foreign = collection is None or (collection.state in ("failed", "cancelled") and not collection.unfinished)
    whole = collection is not None and collection.state == "succeeded"
    return DemoSetInfo(
        name=name,
        usable=held is not None and (foreign or whole),
        size_bytes=held.size_bytes if held else 0,
        tasks=[_task(task) for task in held.tasks] if held else [],
        collection=None if foreign and held else collection,
    )


def _task(task: HeldDemos) -> DemoTaskInfo:
    return DemoTaskInfo(
        task=task.task,
        episodes=task.episodes,
        rows=task.rows,
        mean_return=task.mean_return,
        mean_score=task.mean_score,
        mean_success=None if math.isnan(task.mean_success) else task.mean_success,
        image_dim=task.image_dim,
        image_encoder=task.image_encoder or None,
    )
