"""Talking to replay's limiter: a thread that reports the steps taken, and brings the groups permission for more."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

from newt.client.shards import Replay
from services.learner.collecting.pace import Pace
from services.learner.waiting import Stopped

# The trainer learns of new steps this late, and has to wait for them if it is the faster side.
REPORT_EVERY_S = 0.1
# A replay service that was restarted learns of unfinished episodes this late.
REPEAT_EVERY_S = 2.0
TIMEOUT_S = 2.0


class LimiterLink:
    """Keeps collection and training in step, while it is entered and collection goes on.

    One call for all groups: each of them asking at every step would cost more than the steps of fast simulators.

    Args:
        replay: Its client.
        buffer_id: The run's id.
        pace: Says what was taken, and holds the groups.
    """

    def __init__(self, replay: Replay, buffer_id: str, pace: Pace) -> None:
        self._replay, self._buffer_id, self._pace = replay, buffer_id, pace
        self._thread = threading.Thread(target=self._run, name="limiter", daemon=True)

    def _run(self) -> None:
        pace = self._pace
        try:
            while not pace.is_over():
                taken = pace.counted()
                permit = self._replay.await_insert(
                    self._buffer_id, TIMEOUT_S, env_steps_taken=taken, acting_weights_version=pace.acting_version
                )
                if permit.granted:
                    pace.permit(permit.permitted_env_steps)
                    pace.wait_for_news(taken, REPORT_EVERY_S, REPEAT_EVERY_S)
        except Stopped:
            pass
        except BaseException as error:
            pace.fail(error)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.join(10.0)
