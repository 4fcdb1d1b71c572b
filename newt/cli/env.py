"""`newt env`: tasks of your own. Their code runs in processes of the simulator service, never in this one."""

from __future__ import annotations

import json as json_format
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich.markup import escape

from newt.cli import env_places
from newt.cli.rest import Api, UrlOption
from newt.cli.terminal import JsonOption, SourceArgument, SourceParameter, console, print_json
from newt.cli.told_lines import ToldLines
from newt.errors import AlreadyExistsError, InvalidInputError, NewtError
from newt.own import environments, sources
from newt.processes import how_it_ended
from newt.tasks.reports import Criterion

env_app = typer.Typer(
    help="Tasks of your own: begin one, check it, watch it, bring it elsewhere.", no_args_is_help=True
)
env_places.register(env_app)

_CALL_TIMEOUT_S = 60.0
_UNTRAINED = ("random", "zero", "expert")
_PACKAGE = "newt.own.example"
_FILES = ("env.py", "test_env.py")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_COLOURS = {"passed": "green", "failed": "red", "warning": "yellow"}
_FACTS = '''"""A task of your own, made of {source}: what Newt must know of it beside what it says itself."""

{imported}

from newt.own import OwnTask, Returns

{made}TASK = OwnTask(
    name="{name}",
    make={make},
    # The agent reads these two.
    embodiment="What the body is, and what each action does.",
    goal="What to do.",
    # Newt cuts episodes off after so many steps.
    episode_length=200,
    # How good an episode was, from 0 to 1: its sum of rewards between the worst and the best that one expects, or
    # Success(): info["success"] of the last step. `newt env check` shows the returns of random actions.
    score=Returns(worst=-1000.0, best=0.0),
)
'''
_MAKE = '''
def make(render_mode=None):
    """Makes the environment."""
    return gymnasium.make("{env_id}", render_mode=render_mode, disable_env_checker=True)


'''
_IN_MODULE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@env_app.command()
def init(
    name: Annotated[str, typer.Argument(help="Name of the folder, and of the task.")],
    from_: Annotated[
        str | None, typer.Option("--from", help="Begin with an existing environment: gym:ID, or MODULE:NAME.")
    ] = None,
) -> None:
    """Make a folder with one commented file, env.py, that already runs, and a test of it."""
    folder = Path(name)
    if not _NAME.fullmatch(folder.name):
        raise InvalidInputError("NAME", f"got {name!r}, expected a letter, then letters, digits, _ and -")
    if from_ is not None and not from_.startswith("gym:") and not _IN_MODULE.fullmatch(from_):
        raise InvalidInputError("--from", f"got {from_!r}, expected gym:ID, or MODULE:NAME of a class or a function")
    task = folder.name.replace("_", "-").lower()
    if from_ is not None:
        texts = {"env.py": _facts_of(from_, task)}
    else:
        texts = {file: resources.files(_PACKAGE).joinpath(file).read_text(encoding="utf-8") for file in _FILES}
        texts["env.py"] = texts["env.py"].replace("my-reacher", task)
    there = [file for file in texts if (folder / file).exists()]
    if there:
        raise AlreadyExistsError(f"{folder / there[0]} exists already; choose another name, or remove it")
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        (folder / file).write_text(text, encoding="utf-8")
    shown = f"./{folder}" if not folder.is_absolute() and folder.parts[0] not in (".", "..") else str(folder)
    console.print(f"{folder / 'env.py'} is yours to change. Then:", highlight=False, soft_wrap=True)
    for line in (f"check {shown}", f"play {shown} --agent {'random' if from_ else 'expert'}"):
        console.print(f"  newt env {line}", highlight=False, soft_wrap=True)
    console.print(f"  newt train {shown} --preset laptop", highlight=False, soft_wrap=True)


def _facts_of(source: str, name: str) -> str:
    """The text of a file that declares an environment which is elsewhere."""
    if source.startswith("gym:"):
        made = _MAKE.format(env_id=source.removeprefix("gym:"))
        return _FACTS.format(source=source, name=name, imported="import gymnasium", made=made, make="make")
    module, _, attribute = source.partition(":")
    imported = f"from {module} import {attribute}"
    return _FACTS.format(source=source, name=name, imported=imported, made="", make=attribute)


@env_app.command()
def check(
    source: Annotated[str | None, SourceParameter] = None,
    address: Annotated[
        str | None, typer.Option(help="Look at a simulator service instead, anybody's: HOST:PORT.")
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(help="Tasks of the service; repeatable. Default: one with short episodes of each domain."),
    ] = None,
    steps: Annotated[int, typer.Option(min=10, help="Random steps.")] = 10_000,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes of each policy whose score is measured.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first episode.")] = 0,
    limit: Annotated[
        float, typer.Option(min=0.1, help="Seconds that a reset or a step may take: NEWT_SIM_STEP_TIMEOUT_S.")
    ] = 60.0,
    json: JsonOption = False,
) -> None:
    """Look at everything that training relies on; exit status 1 if something required has failed.

    With --address, at what any simulator service must do, in whatever language it is written.
    """
    if (source is None) == (address is None):
        raise InvalidInputError("SOURCE", "name a source, or the --address of a service: one of the two")
    found: list[Criterion] = []
    facts: dict[str, Any] = {}
    begun = {"begun": "source", "task": ""}
    if address is not None:
        for one in _of_service(address, task or ()):
            found.append(one)
            if not json:
                _print(one)
        _conclude(address, found, facts, json)
        return
    options = ("--steps", steps, "--episodes", episodes, "--seed", seed, "--limit", limit)
    for line in _lines("own", str(source), source, *options):
        if "begun" in line:
            begun = line
        elif "facts" in line:
            facts[line["facts"]["name"]] = line["facts"]
        elif "criterion" in line:
            found.append(Criterion(**line["criterion"]))
            if not json:
                _print(found[-1])
        elif "ended" in line:
            remedy = (
                "mend what ends the process: exit, os._exit, a crash in compiled code, too much memory, or a call that "
                f"blocks for more than {limit:g} s where Python cannot end it"
            )
            found.append(Criterion(begun["task"], begun["begun"], "failed", line["ended"], remedy))
            if not json:
                _print(found[-1])
    _conclude(str(source), found, facts, json)


@env_app.command()
def play(
    source: SourceArgument,
    agent: Annotated[
        str, typer.Option(help="random, zero, expert, a RUN (RUN/best, ...), or a checkpoint's file.")
    ] = "random",
    task: Annotated[str | None, typer.Option(help="Which task, of a source with several. Default: the first.")] = None,
    out: Annotated[Path | None, typer.Option(help="Video to write. Default: TASK-AGENT.mp4 in this folder.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the episode and of random actions.")] = 0,
    window: Annotated[bool, typer.Option("--window", help="Show it in a window; no video is written.")] = False,
    url: UrlOption = None,
) -> None:
    """Play one episode and write a video of it (MP4); agents act as they were trained to."""
    named = agent if agent in _UNTRAINED else Path(agent).name
    path = out or Path(f"{Path(source.rpartition(':')[2]).name or 'episode'}-{named}.mp4")
    with TemporaryDirectory() as folder:
        player = agent if agent in _UNTRAINED else str(_file_of(agent, url, Path(folder)))
        arguments = [*(["--task", task] if task else []), "--agent", player, "--seed", seed, "--out", path]
        if window:
            arguments.append("--window")
        _play(source, arguments)


def _file_of(agent: str, url: str | None, folder: Path) -> Path:
    """A checkpoint's file: that of this name, else a run's, fetched from the learner."""
    if Path(agent).exists():
        return Path(agent)
    run_id, _, name = agent.partition("/")
    try:
        api = Api(url)
        api.download(f"/runs/{run_id}/checkpoints/{name or 'newest'}", folder / "checkpoint")
    except NewtError as error:
        raise InvalidInputError(
            "--agent", f"got {agent!r}, expected random, zero, expert, a checkpoint's file, or a run: {error}"
        ) from error
    return folder / "checkpoint"


def _play(source: str, arguments: Sequence[object]) -> None:
    for line in _lines("own_video", source, source, *arguments):
        if "error" in line or "ended" in line:
            raise NewtError(line.get("error") or line["ended"])
        console.print(
            f"{line['task']}: {line['steps']} steps, return {line['return']:.2f}, score {line['score']:.2f}: "
            f"{line['video']}",
            highlight=False,
            soft_wrap=True,
        )


@env_app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="A crash-*.npz of a simulator; its log names it.")],
    source: Annotated[str | None, typer.Option(help="Where the task comes from, if it has moved since.")] = None,
) -> None:
    """Step an episode again that ended in a crash; exit status 1 while it still does."""
    line: dict[str, Any] = {}
    moved = [sources.absolute(source)] if source else []
    for line in _lines("crash", moved[0] if moved else _of_crash(file), file, *moved):
        if "error" in line:
            raise NewtError(line["error"])
        if "ended" in line:
            line = {"now": line["ended"]}
            break
        console.print(f"{line['task']}, seed {line['seed']}, {line['steps']} steps", highlight=False)
        console.print(f"recorded: {escape(line['recorded'])}", highlight=False, soft_wrap=True)
        if line["differs"] is not None:
            console.print(f"the observation after {line['differs']} steps is another one than then")
    console.print(f"now: {escape(line['now']) or 'it does not fail'}", highlight=False, soft_wrap=True)
    if line["now"]:
        raise typer.Exit(1)


def _of_service(address: str, tasks: Sequence[str]) -> Iterator[Criterion]:
    from newt.client import SimClient  # gRPC and NumPy, which the other commands need not wait for
    from newt.client.compliance import choose, examine

    with SimClient(address, _CALL_TIMEOUT_S) as client:
        yield from examine(client, choose(client, tasks))


def _conclude(source: str, found: list[Criterion], facts: dict[str, Any], json: bool) -> None:
    wrong = [one for one in found if one.outcome == "failed" and one.required]
    if json:
        criteria = [asdict(one) for one in found]
        print_json({"source": source, "ok": not wrong, "tasks": list(facts.values()), "criteria": criteria})
    else:
        warned = sum(one.outcome != "passed" for one in found) - len(wrong)
        passed = len(found) - len(wrong) - warned
        console.print(f"{passed} passed, {len(wrong)} failed, {warned} to think about", highlight=False)
    if wrong:
        raise typer.Exit(1)


def _print(one: Criterion) -> None:
    note = "" if one.outcome != "failed" or one.required else " (not required)"
    where = f"{one.task}: " if one.task else ""
    colour = _COLOURS[one.outcome]
    console.print(f"[{colour}]{one.outcome:7}[/{colour}] {where}{one.name}{note}: {escape(one.detail)}", soft_wrap=True)
    if one.remedy:
        console.print(f"        {escape(one.remedy)}", highlight=False, soft_wrap=True)


def _of_crash(file: Path) -> str:
    """The source that a crash's file names, of which there may be several; empty if it cannot be read."""
    import numpy as np

    try:
        with np.load(file, allow_pickle=False) as stored:
            named = json_format.loads(json_format.loads(str(stored["facts"]))["sources"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return ""  # Whoever steps it says what is wrong.
    return str(named[0]) if len(named) == 1 else ""


def _lines(module: str, source: str, *arguments: object) -> Iterator[dict[str, Any]]:
    """What a check of the simulator service tells, in a source's environment; at last how it `ended`, if not well."""
    told = ToldLines(f"services.sim.checks.{module}", *arguments, python=environments.python_of(source))
    line: dict[str, Any] = {}
    for line in told:
        yield line
    if not line.keys() & {"done", "error", "video", "now"}:
        yield {"ended": f"its process {how_it_ended(told.status)}"}
