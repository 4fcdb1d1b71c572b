"""All records of the learner in Redis: runs, their histories, evaluations on request, collections of demonstrations."""

from __future__ import annotations

from typing import Any

from newt.runs.demos import DemoCollection
from newt.runs.evaluations import EvaluationJob
from services.learner.records import keys, redis
from services.learner.records.broken import BrokenRecords
from services.learner.records.history import History
from services.learner.records.jobs import JobStore
from services.learner.records.runs import RunStore


class Records:
    """The stores of all records.

        records = Records.connect("redis://127.0.0.1:6379/0")
        run = records.runs.create(new_id(spec.name), spec, directory)
        writer = RunWriter(records, run.id, attempt)   # in the run's processes

    Every method of every store raises UnavailableError when Redis does not answer.

    Attributes:
        runs: Records of runs.
        history: What happened in them.
        evaluations: Evaluations on request.
        demos: Collections of demonstrations.
        broken: Records that were found broken when all were read last.
    """

    def __init__(self, client: Any) -> None:
        self.client = client
        self.broken = BrokenRecords()
        self.history = History(client)
        self.runs = RunStore(client, self.history, self.broken)
        self.evaluations = JobStore(client, keys.EVALUATIONS, "evaluation", EvaluationJob, self.broken)
        self.demos = JobStore(client, keys.DEMOS, "demonstrations", DemoCollection, self.broken)

    @classmethod
    def connect(cls, url: str) -> Records:
        """Connects lazily to an address with its password; nothing is sent before the first call."""
        return cls(redis.connect(url))

    def ping(self) -> None:
        """Raises UnavailableError unless Redis answers."""
        self.client.ping()
