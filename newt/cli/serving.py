"""`newt serve`: trained models for a running planner, without any run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from newt.cli.terminal import HomeOption, JsonOption, console, name_table, print_json
from newt.errors import InvalidInputError, NewtError
from newt.local.state import StackState, default_home
from newt.runs.record import Computing

if TYPE_CHECKING:
    from newt.client.planner import PlannerClient
    from newt.local.models import ServedModels

# What asks the planner needs gRPC: the commands import it themselves.

STATUS_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class Served:
    """A model that a planner has, for people.

    Attributes:
        name: Its name.
        version: Version of its weights; 0 if there is none that can be used.
        tasks: Its tasks.
        parameters: Learnable numbers.
        refused: Why its newest version is not used; empty if it is.
    """

    name: str
    version: int
    tasks: tuple[str, ...] = ()
    parameters: int = 0
    refused: str = ""

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(serve)


def serve(
    checkpoints: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CHECKPOINT]...",
            help="Files, or folders, which stand for the newest checkpoint in them; NAME=CHECKPOINT gives a name.",
        ),
    ] = None,
    stop: Annotated[list[str] | None, typer.Option("--stop", help="Take a model back; repeatable.")] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--folder", help="Folder that the planner watches (NEWT_PLANNER_MODELS_DIR), without `newt up`."),
    ] = None,
    planner: Annotated[str, typer.Option("--planner", help="Planner beside --folder.")] = "127.0.0.1:50071",
    timeout_s: Annotated[float, typer.Option("--timeout", min=1, help="Seconds that loading one may take.")] = 120.0,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Give trained models to the running planner, without a run; replaced while serving when their files change.

    Without arguments: what it serves.
    """
    from newt.client.planner import PlannerClient
    from newt.local.models import ServedModels

    named = [_named(text) for text in checkpoints or ()]
    names = [name for name, _ in named]
    for name in names:
        if names.count(name) > 1 or name in (stop or ()):
            raise InvalidInputError("CHECKPOINT", f"the name {name} is given twice; use NAME=CHECKPOINT")
    models = ServedModels(folder, planner) if folder is not None else ServedModels.of_stack(home or default_home())
    for name in stop or ():
        models.stop(name, timeout_s)
        if not json:
            console.print(f"{name} is no longer served.", highlight=False)
    for name, path in named:
        version = models.serve(name, path, timeout_s)
        if not json:
            console.print(f"{name} is served, version {version}.", highlight=False)
    with PlannerClient(models.planner) as client:
        served = models_of(client, models)
    if json:
        print_json([model.as_json() for model in served])
    elif not stop and not named:
        console.print(table_of(served) if served else "The planner serves no model.")


def models_of(client: PlannerClient, files: ServedModels | None = None, timeout_s: float = 10.0) -> list[Served]:
    """What a planner serves and refuses, by name; also files that it has not looked at yet. Raises UnavailableError."""
    refused = client.refused(timeout_s=timeout_s)
    found = {
        model.model_id: Served(
            model.model_id, model.weights_version, model.tasks, model.parameters, refused.pop(model.model_id, "")
        )
        for model in client.models(timeout_s=timeout_s)
    }
    found |= {name: Served(name, 0, refused=reason) for name, reason in refused.items()}
    waiting = files.names() if files is not None else []
    found |= {name: Served(name, 0, refused="not loaded") for name in waiting if name not in found}
    return [found[name] for name in sorted(found)]


def served_by(state: StackState) -> tuple[list[Served], Computing | None]:
    """What the planner of a stack serves, and computes on; nothing while it does not answer."""
    from newt.client.planner import PlannerClient
    from newt.local.models import planner_address

    try:
        with PlannerClient(planner_address(state)) as client:
            return models_of(client, timeout_s=STATUS_TIMEOUT_S), client.computing(timeout_s=STATUS_TIMEOUT_S)
    except (NewtError, StopIteration):
        return [], None


def table_of(served: Sequence[Served]) -> Table:
    """Models as a table."""
    table = name_table("model", "version", "tasks", "parameters", "", title="models of the planner")
    for model in served:
        tasks = ", ".join(model.tasks[:3]) + (f" and {len(model.tasks) - 3} more" if len(model.tasks) > 3 else "")
        version, parameters = (str(model.version), f"{model.parameters:,}") if model.version else ("-", "-")
        table.add_row(model.name, version, tasks, parameters, model.refused and f"refused: {model.refused}")
    return table


def _named(text: str) -> tuple[str, Path]:
    """Name and path of an argument."""
    name, equals, path = text.partition("=")
    if equals and not Path(text).exists():
        return name, Path(path)
    whole = Path(text)
    resolved = whole.absolute()
    if resolved.name == "checkpoints" and resolved.is_dir():
        return resolved.parent.name, whole
    return (resolved.stem if resolved.suffix in (".safetensors", ".pt") else resolved.name), whole
