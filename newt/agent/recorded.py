"""Work of fixed shapes that a GPU repeats by itself: recorded once, replayed in one launch (CUDA graphs).

Python starts about a thousand operations of an update or of a small plan one by one, which takes longer than most of
them do. A recording holds their addresses and the numbers that Python gave them, so recorded work must

- take all that changes from tensors: seeds and learning rates too;
- read nothing from the device, and have no shape that depends on what a tensor holds;
- change weights and other state in place.

Its inputs are copied to where the recording reads them, and its results lie where they lay the last time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]

WARM_UPS = 2
"""Times that work is done before it is recorded: libraries set themselves up, and optimisers make their moments."""
_RECORDING = threading.Lock()  # CUDA records one piece of work of a process at a time.


class Recorder(Protocol):
    """What records on a device."""

    def run(self, work: Callable[[], Tensors]) -> Tensors:
        """Does work that may be recorded later."""

    def record(self, work: Callable[[], Tensors]) -> Callable[[], Tensors]:
        """Records work without doing it; what comes back does it, and returns the same tensors each time."""


class CudaRecorder:
    """Records on a GPU. Everything that one of them has recorded shares memory, so it is replayed in one thread.

    Args:
        device: The GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._memory = torch.cuda.graph_pool_handle()

    def run(self, work: Callable[[], Tensors]) -> Tensors:
        """As `Recorder.run`: on the stream that it will be recorded on."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            results = work()
        current.wait_stream(self._stream)
        for result in results.values():
            result.record_stream(current)
        return results

    def record(self, work: Callable[[], Tensors]) -> Callable[[], Tensors]:
        """As `Recorder.record`."""
        graph = torch.cuda.CUDAGraph()
        # Other threads go on meanwhile: they plan, load and read.
        mode = "thread_local"
        with torch.cuda.graph(graph, pool=self._memory, stream=self._stream, capture_error_mode=mode):
            results = work()

        def replay() -> Tensors:
            graph.replay()
            return results

        return replay


class Rehearsal:
    """Stands in for a recorder on a CPU, which has nothing to record: Python does the work each time."""

    def run(self, work: Callable[[], Tensors]) -> Tensors:
        """As `Recorder.run`."""
        return work()

    def record(self, work: Callable[[], Tensors]) -> Callable[[], Tensors]:
        """As `Recorder.record`."""
        kept: dict[str, Tensor] = {}

        def replay() -> Tensors:
            for name, result in work().items():
                kept.setdefault(name, torch.empty_like(result)).copy_(result)
            return kept

        return replay


def recorder_for(device: torch.device) -> Recorder:
    """What records on a device."""
    return CudaRecorder(device) if device.type == "cuda" else Rehearsal()


class Recorded:
    """Work that is done a few times, then recorded, then replayed; where it cannot be recorded it goes on as it began.

    Example:
        >>> work = Recorded("a sum", lambda given: {"sum": given["x"].sum()}, {"x": torch.zeros(3)}, Rehearsal())
        >>> [float(work({"x": torch.full((3,), number)})["sum"]) for number in (1.0, 2.0, 3.0, 4.0)]
        [3.0, 6.0, 9.0, 12.0]

    Args:
        name: What it is, for the log.
        work: From named tensors to named tensors.
        places: Where it reads what it is given: tensors that are its own from now on, filled with something valid.
        recorder: What records.
    """

    def __init__(self, name: str, work: Callable[[Tensors], Tensors], places: Tensors, recorder: Recorder) -> None:
        self._name, self._places, self._recorder = name, places, recorder
        self._work: Callable[[], Tensors] = partial(work, places)
        self._replay: Callable[[], Tensors] | None = None
        self._runs = 0

    @property
    def ready(self) -> bool:
        """Whether the next call replays."""
        return self._replay is not None

    def __call__(self, given: Tensors) -> Tensors:
        """Does the work.

        Args:
            given: A tensor for each place, or for its first rows: the others stay as they are.

        Returns:
            The results, which the next call writes over.
        """
        for name, place in self._places.items():
            value = given[name]
            place[: len(value)].copy_(value, non_blocking=True)
        if self._replay is not None:
            return self._replay()
        self._runs += 1
        if self._runs <= WARM_UPS:
            return self._recorder.run(self._work)
        try:
            with _RECORDING:
                self._replay = self._recorder.record(self._work)
        except Exception as error:
            _log().error("not_recorded", work=self._name, remedy="it is done without", exc_info=error)
            self._replay = self._work
        else:
            _log().info("recorded", work=self._name)
        return self._replay()


def _log() -> Any:
    import structlog  # which programs that only act have not: they record nothing

    return structlog.get_logger(__name__)
