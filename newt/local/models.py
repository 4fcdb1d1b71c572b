"""Trained models that a planner serves from files: links in a folder that it watches."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from newt.client.planner import PlannerClient
from newt.errors import AlreadyExistsError, CorruptDataError, InvalidInputError, NotFoundError, UnavailableError
from newt.local.stack import MODELS_FOLDER
from newt.local.state import StackState, read
from newt.wire.limits import MODEL_ID

SUFFIXES = (".safetensors", ".pt")
_ASK_S = 10.0
_LOOK_S = 0.2  # the planner tells nobody when it has loaded a file


class ServedModels:
    """The models that a planner serves from files.

    Args:
        folder: The folder that it watches.
        planner: Its address.
    """

    def __init__(self, folder: Path, planner: str) -> None:
        self.planner = planner
        self._folder = folder

    @classmethod
    def of_stack(cls, home: Path) -> ServedModels:
        """Those of a local stack. Raises UnavailableError if none runs."""
        state = read(home)
        if state is None or not state.active:
            raise UnavailableError(f"no stack runs in {home}: start one with `newt up`, or name --folder and --planner")
        return cls(home.absolute() / MODELS_FOLDER, planner_address(state))

    def names(self) -> list[str]:
        """Names of all, whether the planner could load them or not."""
        entries = self._folder.iterdir() if self._folder.is_dir() else ()
        return sorted({_name(path) for path in entries if not path.name.startswith(".") and _counts(path)})

    def serve(self, name: str, path: Path, timeout_s: float) -> int:
        """Gives a file or folder to the planner under a name, in place of what had it; returns the version served.

        Raises:
            InvalidInputError: Not a name that a model can have.
            NotFoundError: There is no such file or folder.
            AlreadyExistsError: A run's model has that name.
            CorruptDataError: The planner refuses it; what was served before is served again.
            UnavailableError: The planner did not load it in time.
        """
        if not MODEL_ID.fullmatch(name):
            raise InvalidInputError("NAME", f"got {name[:80]!r}, expected 1 to 128 of A-Z a-z 0-9 . _ @ -")
        if not path.exists():
            raise NotFoundError(f"{path}: no such file or folder")
        if path.is_file() and path.suffix not in SUFFIXES:
            with path.open("rb") as file:
                suffix = ".pt" if file.read(2) == b"PK" else ".safetensors"
        else:
            suffix = path.suffix if path.is_file() else ""
        with PlannerClient(self.planner) as client:
            before = _versions(client)
            if name in before and name not in self.names():
                raise AlreadyExistsError(f"{name} is the model of a run; choose another name with NAME=CHECKPOINT")
            refused = client.refused(timeout_s=_ASK_S).get(name)
            earlier = self._replace(name, f"{name}{suffix}", path.absolute())
            try:
                return _await(client, name, lambda version: version != before.get(name), refused, timeout_s)
            except CorruptDataError:
                self._unlink(name)
                for link, target in earlier.items():
                    os.symlink(target, self._folder / link)
                raise

    def stop(self, name: str, timeout_s: float) -> None:
        """Takes a model back.

        Raises:
            NotFoundError: No such model is served from a file; names those that are.
            UnavailableError: The planner did not give it up in time.
        """
        if name not in self.names():
            raise NotFoundError(f"no model {name!r} is served; there are: {', '.join(self.names()) or 'none'}")
        self._unlink(name)
        deadline = time.monotonic() + timeout_s
        with PlannerClient(self.planner) as client:
            while name in _versions(client):
                if time.monotonic() > deadline:
                    raise UnavailableError(f"the planner still serves {name} after {timeout_s:g} s; see its log")
                time.sleep(_LOOK_S)

    def _replace(self, name: str, link: str, target: Path) -> dict[str, str]:
        """Links a target; returns the links that had the name."""
        self._folder.mkdir(parents=True, exist_ok=True)
        earlier = {path.name: os.readlink(path) for path in self._of(name) if path.is_symlink()}
        foreign = [path.name for path in self._of(name) if not path.is_symlink()]
        if foreign:
            raise AlreadyExistsError(f"{self._folder / foreign[0]} is there and no link of ours; choose another name")
        temporary = self._folder / f".{link}.{os.getpid()}"
        temporary.unlink(missing_ok=True)
        os.symlink(target, temporary)
        temporary.replace(self._folder / link)
        for old in earlier.keys() - {link}:
            (self._folder / old).unlink(missing_ok=True)
        return earlier

    def _unlink(self, name: str) -> None:
        for path in self._of(name):
            if not path.is_symlink():
                raise AlreadyExistsError(f"{path} is no link of ours; remove it yourself")
            path.unlink(missing_ok=True)

    def _of(self, name: str) -> list[Path]:
        return [path for path in self._folder.iterdir() if _name(path) == name and _counts(path)]


def planner_address(state: StackState) -> str:
    """Where the planner of a stack is."""
    return next(str(service["address"]) for service in state.services if service["name"] == "planner")


def _versions(client: PlannerClient) -> dict[str, int]:
    return {model.model_id: model.weights_version for model in client.models(timeout_s=_ASK_S)}


def _await(
    client: PlannerClient, name: str, new: Callable[[int], bool], refused_before: str | None, timeout_s: float
) -> int:
    deadline = time.monotonic() + timeout_s
    while True:
        version = _versions(client).get(name)
        if version is not None and new(version):
            return version
        refused = client.refused(timeout_s=_ASK_S).get(name)
        if refused is not None and refused != refused_before:
            raise CorruptDataError(f"the planner refuses {name}: {refused}")
        if time.monotonic() > deadline:
            raise UnavailableError(
                f"the planner has not loaded {name} after {timeout_s:g} s; it goes on trying: see its log, or take it "
                f"back with `newt serve --stop {name}`"
            )
        time.sleep(_LOOK_S)


def _counts(path: Path) -> bool:
    """Whether the planner looks at it; links to nothing count, as somebody may want to remove them."""
    return path.is_symlink() or path.is_dir() or path.suffix in SUFFIXES


def _name(path: Path) -> str:
    return path.name.removesuffix(path.suffix) if path.suffix in SUFFIXES else path.name
