"""Where declarations of tasks come from: folders, files, modules, Gymnasium ids, installed packages.

This imports other people's code. Only workers and processes that are there for it may call `load`.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium

import newt
from newt.errors import InvalidInputError, NewtError
from newt.own import OwnTask
from newt.own.declaration import ENTRY_POINTS, MAX_EPISODE_LENGTH
from newt.tasks.domains import DOMAINS
from newt.tasks.registry import table_tasks
from newt.tasks.sets import TASK_SETS
from services.sim.domains.own.adapter import nobody_exits

FILE = "env.py"
"""The file of a folder that has the declaration."""
_GYM = "gym:"


def load(source: str) -> list[OwnTask]:
    """The tasks that a source declares.

    Args:
        source: A folder with an `env.py`, a Python file, `gym:ID`, `module:NAME`, or the name of an entry point.

    Raises:
        InvalidInputError: It is none of these, or declares nothing that can be used; names it and says what to do.
    """
    try:
        with nobody_exits():
            found = _found(source)
    except InvalidInputError as error:
        raise _placed(error, _where(error)) from error
    except NewtError:
        raise
    except ModuleNotFoundError as error:
        raise InvalidInputError(
            source,
            f"{_where(error)}it needs the package {error.name!r}: name it in OwnTask(requirements=[...]) or in a "
            "requirements.txt beside the file, or install it where the simulator service runs",
        ) from error
    except Exception as error:
        raise InvalidInputError(
            source, f"cannot be imported: {_where(error)}{type(error).__name__}: {error}"
        ) from error
    tasks = [task for task in found if isinstance(task, OwnTask)]
    if not tasks:
        raise InvalidInputError(
            source, "it declares no task; write TASK = OwnTask(name=..., make=...) in it (from newt.own import OwnTask)"
        )
    try:
        for task in tasks:
            _check_name(task.name)
            _check_requirements(task)
        twice = {task.name for task in tasks if sum(other.name == task.name for other in tasks) > 1}
        if twice:
            raise InvalidInputError("name", f"{sorted(twice)[0]!r} is declared twice; give one another name")
    except InvalidInputError as error:
        raise _placed(error, f"{source}: ") from error
    return tasks


def digest(source: str, env: gymnasium.Env[Any, Any]) -> str:
    """SHA-256 of the code of a source, as hex: of its folder, or of the file that makes the environment."""
    path = _path(source)
    if path is not None:
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    else:
        module = sys.modules.get(type(env.unwrapped).__module__)
        files = [Path(module.__file__)] if module is not None and module.__file__ else []
    total = hashlib.sha256(source.rpartition("/")[2].encode())
    for file in files:
        with contextlib.suppress(OSError):
            total.update(file.read_bytes())
    return total.hexdigest()


def _found(source: str) -> Iterable[Any]:
    path = _path(source)
    if path is not None:
        return _declared(_import_file(path))
    if source.startswith(_GYM):
        return [_of_gym(source.removeprefix(_GYM))]
    if ":" in source:
        module, _, name = source.partition(":")
        return _of_object(source, _attribute(importlib.import_module(module), name))
    entry_points = metadata.entry_points(group=ENTRY_POINTS)
    if source in entry_points.names:
        return _of_object(source, entry_points[source].load())
    close = difflib.get_close_matches(source, entry_points.names, n=3)
    raise InvalidInputError(
        source,
        f"no such folder, file or task{': did you mean ' + ', '.join(close) + '?' if close else ''}; expected "
        f"a folder with {FILE}, a file, gym:ID, module:NAME, or an entry point of the group {ENTRY_POINTS}",
    )


def _path(source: str) -> Path | None:
    path = Path(source)
    return path if path.is_dir() or path.suffix == ".py" or ("/" in source and not source.startswith(_GYM)) else None


def _import_file(path: Path) -> ModuleType:
    if not path.exists():
        raise InvalidInputError(
            str(path), "there is no such folder or file; `newt env init NAME` writes one to begin with"
        )
    file = (path / FILE if path.is_dir() else path).resolve()
    if not file.is_file():
        raise InvalidInputError(
            str(path), f"there is no {file.name} in it; `newt env init NAME` writes a folder to begin with"
        )
    name = "newt_own_" + hashlib.sha256(str(file).encode()).hexdigest()[:12]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))  # for what lies beside it
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _declared(module: ModuleType) -> list[OwnTask]:
    found: list[OwnTask] = []
    for value in vars(module).values():
        for one in value if isinstance(value, list | tuple) else [value]:
            if isinstance(one, OwnTask) and not any(one is other for other in found):
                found.append(one)
    return found


def _attribute(module: ModuleType, name: str) -> Any:
    if not hasattr(module, name):
        close = difflib.get_close_matches(name, vars(module), n=3)
        hint = f"; did you mean {', '.join(close)}?" if close else ""
        raise InvalidInputError(f"{module.__name__}:{name}", f"the module has no {name!r}{hint}")
    return getattr(module, name)


def _of_object(source: str, found: Any) -> Iterable[Any]:
    if isinstance(found, OwnTask):
        return [found]
    if isinstance(found, list | tuple):
        return found
    if isinstance(found, ModuleType):
        return _declared(found)
    raise InvalidInputError(
        source,
        f"it is a {type(found).__name__ if not isinstance(found, type) else 'class'} without a declaration: nobody "
        "knows its goal and its episode length; name an OwnTask(make=..., goal=..., episode_length=...) in its place: "
        f"`newt env init NAME --from {source}` writes one",
    )


def _of_gym(env_id: str) -> OwnTask:
    """A task of an id alone: its goal is its name, and its score is not defined."""
    module, _, name = env_id.rpartition(":")
    if module:
        importlib.import_module(module)
    try:
        spec = gymnasium.spec(name)
    except gymnasium.error.Error as error:
        raise InvalidInputError(f"{_GYM}{env_id}", str(error)) from error
    length = spec.max_episode_steps
    if length is None or not 1 <= length <= MAX_EPISODE_LENGTH:
        raise InvalidInputError(
            f"{_GYM}{env_id}",
            f"it is registered with max_episode_steps {length}; declare it, with an episode_length: "
            f"`newt env init NAME --from {_GYM}{env_id}`",
        )

    def make(render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
        return gymnasium.make(spec, render_mode=render_mode, disable_env_checker=True)

    words = re.sub(r"[^A-Za-z0-9]+", " ", name).strip()
    return OwnTask(
        name=re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.").lower(),
        make=make,
        goal=f"{words}.",
        episode_length=length,
    )


def _check_name(name: str) -> None:
    for kind, names in (("task", table_tasks()), ("task set", TASK_SETS), ("domain", DOMAINS)):
        if name in names:
            raise InvalidInputError("name", f"{name!r} is the name of a {kind} of Newt's; give yours another one")


def _check_requirements(task: OwnTask) -> None:
    missing = []
    for requirement in task.requirements:
        name = re.split(r"[\s\[<>=!~;@]", requirement.strip(), maxsplit=1)[0]
        try:
            metadata.distribution(name)
        except (metadata.PackageNotFoundError, ValueError):
            missing.append(requirement)
    if missing:
        raise InvalidInputError(
            "requirements", f"{task.name} needs {', '.join(missing)}: pip install {' '.join(map(repr, missing))}"
        )


def _placed(error: InvalidInputError, place: str) -> InvalidInputError:
    """The same error with the file that it is about, unless it says so."""
    if not place:
        return error
    return InvalidInputError(f"{place}{error.field}", str(error).removeprefix(f"{error.field}: "))


def _where(error: BaseException) -> str:
    """File and line of the code that raised, without ours and that of imports."""
    if isinstance(error, SyntaxError):
        return ""  # It says so itself.
    ours = (f"{Path(newt.__file__).parent}/", f"{Path(__file__).parent}/", importlib.__file__, "<")
    places = [
        f"{frame.filename}:{frame.lineno}: "
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(ours)
    ]
    return places[-1] if places else ""
