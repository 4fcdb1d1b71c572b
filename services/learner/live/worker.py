"""A play: `python -m services.learner.live.worker`.

Reads JSON from stdin, one a line: what to play, then commands. Writes events to stdout likewise. It ends when stdin
does, or with a last event `ended` that has the reason.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import structlog

from newt import logs
from newt.client.sim import AutoReset, ObsMode, SimClient
from newt.client.sim_session import SimSession
from newt.errors import NewtError
from newt.memory import return_large_blocks
from services.learner.live.session import Commands, LiveSession
from services.learner.playing.sight import Sight, Vision
from services.learner.settings import LearnerSettings, start_sim
from services.learner.waiting import EXIT_DONE, EXIT_FAILED, RunFailedError

CALL_TIMEOUT_S, BUILD_TIMEOUT_S = 30.0, 120.0

log = structlog.get_logger(__name__)


class _Lines:
    """Events on the process's own stdout; whatever else is printed goes to the log."""

    def __init__(self) -> None:
        self._file = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def tell(self, event: str, facts: dict[str, Any]) -> None:
        """Writes one event."""
        print(json.dumps({"event": event, **facts}, allow_nan=False), file=self._file, flush=True)


def play(settings: LearnerSettings, wanted: dict[str, Any], commands: Commands, lines: _Lines) -> None:
    """Plays until the last command.

    Args:
        settings: Of the learner.
        wanted: What to play: `task`, `domain` and `sim` (its simulator), `expert` (whether it has one), `actors` (the
            first one acts first), `seed`, `steps_per_s`, `paused`, `instruction` and `checkpoint` (a path), or null.
        commands: Commands of the parent.
        lines: Where events go.

    Raises:
        NewtError: The agent cannot act, or the simulator is lost.
        RunFailedError: Its image encoder is not there.
    """
    checkpoint = None
    if wanted["checkpoint"] is not None:
        from services.learner.checkpoints import library  # brings torch, which plays without a model need not wait for

        checkpoint = library.load(Path(wanted["checkpoint"]))
    vision = None
    if checkpoint is not None:
        from newt.baselines.checkpoints import PolicyCheckpoint

        vision = None if isinstance(checkpoint, PolicyCheckpoint) else Vision.of(settings, checkpoint)
    # Until now there was nothing to give back, and a signal ended the process at once.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: commands.put(None))
    with (
        SimClient(wanted["sim"], CALL_TIMEOUT_S, BUILD_TIMEOUT_S, remedy=start_sim(wanted["domain"])) as client,
        ExitStack() as leased,
    ):

        def lease() -> SimSession:
            return leased.enter_context(
                client.open(
                    [wanted["task"]],
                    [wanted["seed"]],
                    obs_mode=ObsMode.STATE if vision is None else ObsMode.STATE_RGB,
                    auto_reset=AutoReset.DISABLED,
                    with_expert=wanted["expert"],
                    keep_alive=True,
                )
            )

        session = lease()
        agent = None
        if checkpoint is not None:
            from services.learner.device import working_device
            from services.learner.live.agent import live_agent

            agent = live_agent(checkpoint, session.tasks[0], wanted["instruction"], str(working_device(settings)))
        seen, seed, pace, paused = Sight(vision, 1), wanted["seed"], wanted["steps_per_s"], wanted["paused"]
        live = LiveSession(session, lease, seen, agent, wanted["actors"], seed, pace, lines.tell, paused=paused)
        live.run(commands)


def _read(commands: Commands) -> None:
    for line in sys.stdin:
        commands.put(json.loads(line))
    commands.put(None)


def main() -> int:
    """Plays what stdin asks for; returns the exit status."""
    settings = LearnerSettings()
    logs.configure("play", settings.log_level)
    return_large_blocks()
    lines, commands = _Lines(), Commands()
    wanted = json.loads(sys.stdin.readline())
    threading.Thread(target=_read, args=(commands,), name="stdin", daemon=True).start()
    if settings.torch_threads and wanted["checkpoint"] is not None:
        import torch

        torch.set_num_threads(settings.torch_threads)
    try:
        play(settings, wanted, commands, lines)
    except (NewtError, RunFailedError) as error:
        log.warning("play_ended", reason=str(error))
        lines.tell("ended", {"reason": str(error)})
        return EXIT_FAILED
    return EXIT_DONE


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    # The simulator is given back, and somebody waits: torch and gRPC are not taken down.
    os._exit(status)
