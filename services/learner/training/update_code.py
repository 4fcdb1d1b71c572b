"""By what a run's updates are computed: eagerly, by compiled code, by a recording that the GPU repeats.

Code is made while the first updates are computed eagerly, and used from a checkpoint on.
"""

from __future__ import annotations

import structlog

from newt.agent.batch import UpdateBatch
from newt.agent.code_maker import CodeMaker
from newt.agent.compilation import BACKEND, prepare
from newt.agent.config import ConfigError
from newt.agent.distributed import Ranks
from newt.agent.recorded import recorder_for
from newt.agent.update import Updater
from newt.runs.spec import RunSpec
from services.learner.data_folder import DataFolder

_UPDATES = "updates"

log = structlog.get_logger(__name__)


class UpdateCode:
    """Decides by what the updates of a run are computed.

    Compiled ones equal eager ones to float tolerance only. So that a run which is killed and resumed still sees the
    numbers that it would have seen, all ranks change at a checkpoint, which says so; a trainer that goes on from one
    after the change has code before its first update.

    Args:
        updater: What makes the updates.
        spec: Of the run.
        folder: Keeps the code, so that the next start finds it.
        ranks: The processes that train together.
        used: Whether the run's updates were computed by code already.

    Attributes:
        used: Whether the updates to come are.
        missing: Why there will be none although the run asks for it, else "".
    """

    backend = BACKEND

    def __init__(self, updater: Updater, spec: RunSpec, folder: DataFolder, ranks: Ranks, *, used: bool) -> None:
        asked = spec.resources.compile
        self._wanted = ranks.device.type == "cuda" if asked is None else asked
        self._updater, self._spec, self._ranks = updater, spec, ranks
        self._maker: CodeMaker | None = None
        self._begun = self.used = False
        self.missing = ""
        if spec.resources.graphs:
            updater.record_with(recorder_for(updater.model.device))
        if not self._wanted:
            return
        try:
            prepare(folder.compiled)
        except ConfigError as error:
            log.warning("not_compiled", reason=str(error))
            self.missing = str(error) if asked else ""
            return
        self._maker = CodeMaker()
        self.used = used

    def begin(self, batch: UpdateBatch) -> None:
        """Has the code made for batches like this one, the first; call before each update.

        It waits for the code where the updates before were computed by it.
        """
        if self._begun or self._maker is None:
            return
        self._begun = True
        phases = {"pretraining": self._spec.pretrain_updates() > 0, "online": self._spec.online_updates() > 0}
        generate = self._updater.code_for(batch, self.backend, **phases)
        if self.used:
            generate()
            self._updater.compile_with(self.backend)
        else:
            self._maker.make(_UPDATES, generate)

    def change(self) -> None:
        """Has the updates from now on computed by code if all ranks have theirs; call before each checkpoint."""
        if not self._wanted or self.used:
            return
        made = self._maker is not None and self._maker.event(_UPDATES).is_set()
        if self._ranks.agree(int(not made)):
            return
        self._updater.compile_with(self.backend)
        self.used = True
        log.info("code_used", updates=self._updater.updates)
