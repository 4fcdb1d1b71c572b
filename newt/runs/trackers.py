"""Other programs that keep metrics: TensorBoard, Weights & Biases, Trackio. Their libraries are extras.

A metric's name is ours, below the process that tells it: `trainer/total_loss`, `collector/score/walker-walk`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

from newt.extras import require
from newt.runs.record import MetricsRow, Run

TrackerName = Literal["tensorboard", "wandb", "trackio"]
PROJECT = "newt"


class Tracker(Protocol):
    """Takes the metrics of one run."""

    def log(self, rows: Sequence[MetricsRow]) -> None:
        """Hands over rows, oldest first."""

    def close(self) -> None:
        """Waits until all is kept."""


class TensorBoard:
    """Event files in FOLDER/RUN, as `tensorboard --logdir FOLDER` reads them.

    The step is the process' own counter: updates of the trainer, env steps of all others. TensorBoard itself leaves
    out what a run went back behind when it resumed.
    """

    def __init__(self, run: Run, folder: Path) -> None:
        require("tensorboard", "tensorboard")
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        self._writer = EventFileWriter(str(folder / run.id))

    def log(self, rows: Sequence[MetricsRow]) -> None:
        """Hands over rows, oldest first."""
        for row in rows:
            values = [self._summary.Value(tag=tag, simple_value=value) for tag, value in _named(row).items()]
            step = row.updates if row.source == "trainer" else row.env_steps
            event = self._event(wall_time=row.time.timestamp(), step=step, summary=self._summary(value=values))
            self._writer.add_event(event)
        self._writer.flush()

    def close(self) -> None:
        """Waits until all is kept."""
        self._writer.close()


class WandbLike:
    """A run of Weights & Biases, or of Trackio, which has its interface; as their own settings and variables say.

    Their steps must not go back, as those of a resumed run do: `env_steps`, `updates` and `wall_time` are values
    beside the others, to be chosen as x axis.
    """

    def __init__(self, run: Run, module: str) -> None:
        require(module, module)
        self._library: Any = import_module(module)
        options: dict[str, Any] = {"id": run.id, "group": run.spec.label()} if module == "wandb" else {}
        config = run.spec.model_dump(mode="json")
        self._library.init(project=PROJECT, name=run.id, config=config, resume="allow", **options)

    def log(self, rows: Sequence[MetricsRow]) -> None:
        """Hands over rows, oldest first."""
        for row in rows:
            place = {"env_steps": row.env_steps, "updates": row.updates, "wall_time": row.time.timestamp()}
            self._library.log({**_named(row), **place})

    def close(self) -> None:
        """Waits until all is kept."""
        self._library.finish()


_TRACKERS: Mapping[TrackerName, Callable[[Run, Path], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": lambda run, folder: WandbLike(run, "wandb"),
    "trackio": lambda run, folder: WandbLike(run, "trackio"),
}


def tracker(name: TrackerName, run: Run, folder: Path) -> Tracker:
    """What takes the metrics of a run; only TensorBoard uses the folder.

    Raises:
        UnavailableError: Its library is not installed.
    """
    return _TRACKERS[name](run, folder)


def _named(row: MetricsRow) -> dict[str, float]:
    return {f"{row.source}/{name}": value for name, value in row.values.items()}
