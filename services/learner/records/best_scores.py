"""The best score that any run here has reached on each task, over all of its evaluations."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from newt.runs.record import BestScore
from services.learner.records import keys
from services.learner.records.store import Records

_PAGE = 200


class BestScores:
    """Keeps what it has read of each run; evaluations are read again when there is another one.

    Args:
        records: Records of the runs.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self._known: dict[str, tuple[int, dict[str, BestScore]]] = {}
        self._lock = threading.Lock()

    def read(self) -> dict[str, BestScore]:
        """By task; evaluations of random actions do not count."""
        with self._lock:
            ids = list(self._records.runs.states())
            self._known = {run_id: self._known.get(run_id, (0, {})) for run_id in ids}
            for begin in range(0, len(ids), _PAGE):
                self._refresh(ids[begin : begin + _PAGE])
            best: dict[str, BestScore] = {}
            for _, scores in self._known.values():
                _add(best, scores.values())
            return best

    def _refresh(self, ids: list[str]) -> None:
        pipe = self._records.client.pipeline(transaction=False)
        for run_id in ids:
            pipe.llen(keys.part(run_id, "evaluations"))
        for run_id, number in zip(ids, pipe.execute(raise_on_error=False), strict=True):
            if not isinstance(number, int) or number == self._known[run_id][0]:
                continue
            scores: dict[str, BestScore] = {}
            for evaluation in self._records.history.evaluations(run_id):
                if evaluation.mode != "random":
                    _add(scores, BestScore.each(run_id, evaluation))
            self._known[run_id] = (number, scores)


def _add(best: dict[str, BestScore], scores: Iterable[BestScore]) -> None:
    for score in scores:
        if score.task not in best or score.score > best[score.task].score:
            best[score.task] = score
