"""Starting a run: everything that can be known before it waits for its turn is looked at here."""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from newt.errors import InvalidInputError
from newt.runs.record import Run
from newt.runs.spec import RunSpec
from newt.tasks.embeddings import require_encoder
from newt.tasks.encoders import EncoderUnavailableError, has_weights
from newt.tasks.registry import Task, table_tasks
from newt.tasks.text_lengths import READ, tokens
from newt.vision.encoder import REMEDY as IMAGE_REMEDY
from services.learner import acting
from services.learner.checkpoints.fine_tuning import adopt
from services.learner.checkpoints.library import hold
from services.learner.processes.learner import Learner
from services.learner.processes.node_sets import require_nodes
from services.learner.processes.quotas import within_quotas
from services.learner.records.runs import new_id

log = structlog.get_logger(__name__)


def start_run(learner: Learner, spec: RunSpec) -> Run:
    """Queues a run.

    Args:
        learner: Where.
        spec: As asked for.

    Raises:
        InvalidInputError: Simulators, nodes, demonstrations or weights that it needs are not there; names the field.
        NotFoundError: The checkpoint that it starts from is not there.
        PreconditionError: That checkpoint's agent cannot act here.
        ExhaustedError: It would exceed a quota of whoever asks.
        UnavailableError: Redis or replay does not answer.
        OSError: The data folder cannot be written.
    """
    settings, records = learner.settings, learner.records
    settings.require_sims({task.domain for task in spec.task_list()})
    if spec.resources.nodes > 1:
        require_nodes(settings)
    learner.demo_sets.require_usable(spec.demos.sets)
    source = learner.library.resolve(spec.init_from, "init_from") if spec.init_from is not None else None
    if source is not None:
        spec = adopt(spec, source)
    known = source.header.tasks if source is not None else ()
    new_tasks = [task for task in spec.task_list() if task.name not in known]
    if spec.algorithm.language:
        _require_short_texts(new_tasks, spec.algorithm.text_encoder)
    try:
        if spec.algorithm.language and new_tasks:
            require_encoder([task.instruction for task in new_tasks], spec.algorithm.text_encoder)
    except EncoderUnavailableError as error:
        raise InvalidInputError("algorithm.text_encoder", str(error)) from error
    if spec.image_dim() and not has_weights(settings.image_encoder):
        raise InvalidInputError("obs", f"no image encoder weights at {settings.image_encoder}: {IMAGE_REMEDY}")
    run_id = new_id(spec)
    with within_quotas(learner, spec):
        if source is not None:
            hold(source.path, settings.folder.run_initial(run_id))
        run = records.runs.create(run_id, spec, settings.folder.run(run_id))
    acting.about(run.id)
    log.info("run_created", run=run.id)
    learner.runs.wake()
    return run


def _require_short_texts(tasks: Iterable[Task], encoder: str) -> None:
    """Refuses instructions of which the encoder would read a part; ours are all short enough."""
    ours = table_tasks()
    for task in tasks:
        if ours.get(task.name) == task:
            continue
        count, most = tokens(task.instruction, encoder), READ[encoder]
        if count > most:
            others = [name for name, limit in READ.items() if limit >= count]
            raise InvalidInputError(
                "tasks",
                f"the instruction of {task.name} has {count} tokens, {encoder} reads at most {most}: shorten its "
                f"goal or embodiment{f', or choose algorithm.text_encoder={others[0]}' if others else ''}",
            )
