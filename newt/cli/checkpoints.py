"""`newt checkpoints`: published checkpoints in and out, a look into files of either format, and to the learner."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from newt.cli.rest import Api, UrlOption
from newt.cli.terminal import JsonOption, console, name_table, print_json
from newt.errors import AlreadyExistsError, InvalidInputError
from newt.runs.record import ImportedCheckpoint, ImportedCheckpointList
from newt.runs.stored import read

if TYPE_CHECKING:
    from newt.official.summary import Summary

# What reads and writes the files needs torch, which takes seconds to import: the commands import it themselves.

checkpoints_app = typer.Typer(help="Import, export, inspect and upload checkpoint files.", no_args_is_help=True)

ForceOption = Annotated[bool, typer.Option("--force", help="Replace the output file if it exists.")]


@checkpoints_app.command("import")
def import_checkpoint(
    file: Annotated[Path, typer.Argument(help="Published checkpoint (.pt).")],
    out: Annotated[Path, typer.Argument(help="Checkpoint to write.")],
    task: Annotated[
        list[str] | None,
        typer.Option("--task", help="Its task, for a single-task file; repeatable, in row order. Default: the 200."),
    ] = None,
    add_images: Annotated[
        bool, typer.Option("--add-images", help="Widen a state agent to state and image features.")
    ] = False,
    force: ForceOption = False,
) -> None:
    """Convert a published checkpoint: networks, target critics, value scale and both optimisers."""
    from newt.agent.checkpoints import save_checkpoint
    from newt.official.checkpoints import read_official, with_images
    from newt.official.summary import find_encoder, summarise

    check_output(out, force)
    checkpoint = read_official(file, task)
    if add_images:
        checkpoint = with_images(checkpoint)
    table = checkpoint.table
    encoder = find_encoder(table.names, table.embeddings)
    save_checkpoint(out, checkpoint.updater(), {**checkpoint.info, "text_encoder": encoder})
    console.print(_table(out, summarise(out)))


@checkpoints_app.command("add-images")
def add_images_to(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint of this project, of an agent without images.")],
    out: Annotated[Path, typer.Argument(help="Checkpoint to write.")],
    image_dim: Annotated[
        int, typer.Option(min=1, help="Columns of image features: vision.feature_dim times vision.frames.")
    ] = 768,
    force: ForceOption = False,
) -> None:
    """Widen a state agent to state and image features. Their weights start at zero: it acts as before at first."""
    from newt.agent.checkpoints import save_checkpoint
    from newt.official.checkpoints import with_images
    from newt.official.summary import open_checkpoint, summarise

    check_output(out, force)
    widened = with_images(open_checkpoint(checkpoint), image_dim)
    # What the run saw is not what the agent sees now.
    kept = {name: value for name, value in widened.info.get("spec", {}).items() if name not in ("obs", "vision")}
    save_checkpoint(out, widened.updater(), {**widened.info, **({"spec": kept} if kept else {})})
    console.print(_table(out, summarise(out)))


@checkpoints_app.command("export")
def export_checkpoint(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint of this project.")],
    out: Annotated[Path, typer.Argument(help="Published checkpoint to write (.pt).")],
    force: ForceOption = False,
) -> None:
    """Write a checkpoint in the published format."""
    from newt.official.checkpoints import write_official
    from newt.official.summary import open_checkpoint, summarise

    check_output(out, force)
    write_official(out, open_checkpoint(checkpoint))
    console.print(_table(out, summarise(out)))


@checkpoints_app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="Checkpoint of either format.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show a checkpoint: size, dimensions, tasks, steps, optimisers, text encoder."""
    from newt.official.summary import summarise

    summary = summarise(file)
    if json:
        console.print_json(data={"file": str(file), **asdict(summary)})
    else:
        console.print(_table(file, summary))


@checkpoints_app.command()
def upload(
    file: Annotated[Path, typer.Argument(help="Checkpoint of this project.")],
    name: Annotated[str, typer.Argument(help="Name that requests use: imported/NAME.")],
    url: UrlOption = None,
) -> None:
    """Bring a checkpoint to the learner, to evaluate or fine-tune it there."""
    from newt.official.summary import open_checkpoint

    open_checkpoint(file)  # said here rather than after the transfer
    imported = read(ImportedCheckpoint, Api(url).upload(f"/checkpoints/{name}", file))
    console.print(f"imported/{imported.name}: {len(imported.tasks)} tasks, size {imported.model}")


@checkpoints_app.command("list")
def list_imported(json: JsonOption = False, url: UrlOption = None) -> None:
    """List the checkpoints that were brought to the learner; `newt runs checkpoints RUN` lists a run's."""
    listed = read(ImportedCheckpointList, Api(url).get("/checkpoints"))
    if json:
        print_json(listed)
        return
    table = name_table("checkpoint", "size", "MB", "tasks", "text encoder", "since")
    for item in listed.checkpoints:
        table.add_row(
            f"imported/{item.name}",
            item.model if item.broken is None else f"broken: {item.broken}",
            f"{item.size_bytes / 1e6:.1f}",
            str(len(item.tasks)),
            item.text_encoder or "-",
            f"{item.created_at:%Y-%m-%d %H:%M}",
        )
    console.print(table)


@checkpoints_app.command()
def delete(name: Annotated[str, typer.Argument(help="NAME of imported/NAME.")], url: UrlOption = None) -> None:
    """Remove a checkpoint that was brought to the learner."""
    Api(url).delete(f"/checkpoints/{name.removeprefix('imported/')}")
    console.print(f"imported/{name.removeprefix('imported/')} deleted")


def check_output(path: Path, force: bool) -> None:
    """Refuses to overwrite, and to write where there is no folder, before any work is done."""
    if not path.parent.is_dir():
        raise InvalidInputError("OUT", f"{path.parent} is not a folder")
    if path.exists() and not force:
        raise AlreadyExistsError(f"{path} exists; name another file or use --force")


def _table(path: Path, summary: Summary) -> Table:
    config = summary.config
    encoder = summary.text_encoder or "encoder not known here (rows are kept as they are)"
    tasks = ", ".join(summary.tasks[:5]) + (", ..." if len(summary.tasks) > 5 else "")
    named = f"{len(summary.tasks)}: {tasks}" if summary.tasks else f"not named in the file ({summary.rows} rows)"
    table = Table("", str(path), show_header=True)
    for name, value in {
        "format": summary.format,
        "size": f"{config.size}, {summary.parameters:,} parameters",
        "dimensions": f"obs {config.obs_dim}, image {config.image_dim}, action {config.action_dim}, latent "
        f"{config.latent_dim}, encoder {config.encoder_layers} x {config.encoder_dim}, mlp {config.mlp_dim}, "
        f"{config.num_critics} critics" + (f" of width {config.critic_dim}" if config.critic_dim else ""),
        "tasks": named,
        "language": f"{config.language_dim} columns, {encoder}" if config.reads_language else "none",
        "updates": f"{summary.updates:,}",
        "env steps": "not in the file" if summary.env_steps is None else f"{summary.env_steps:,}",
        "optimisers": f"moments of {summary.stepped[0]} and {summary.stepped[1]} parameters (main, policy)",
        "value scale": f"{summary.scale:g}",
    }.items():
        table.add_row(name, value)
    return table
