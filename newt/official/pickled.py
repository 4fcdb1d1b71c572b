"""Reading published files without trusting them, and writing them.

A published file is what `torch.save` writes: an uncompressed zip archive with a pickle and the bytes of the
tensors. A pickle can name any function and have it called. Here, three things stand before that: the archive's
checksums must hold, the pickle's instructions are read without executing them and may name nothing but the parts of
tensors, and torch's own restricted loader then does the loading.

Demonstrations are pickled tensordicts. Their names in the pickle are read and written here without the library.
"""

from __future__ import annotations

import os
import pickle
import pickletools
import threading
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from newt.errors import CorruptDataError, InvalidInputError, NotFoundError

# What a dictionary of tensors consists of. The storage classes only name an element type.
_TENSOR_PARTS = frozenset(
    [
        "collections.OrderedDict",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_parameter",
        "torch.Size",
        "torch.device",
        *(
            f"torch.{kind}Storage"
            for kind in ("Float", "Double", "Half", "BFloat16", "Bool", "Byte", "Char", "Short", "Int", "Long")
        ),
    ]
)
# Instructions that take the name of a class from the data, or from a registry: no published file has them.
_INDIRECT_NAMES = frozenset({"STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4"})

TENSORDICT_FUNCTION = "tensordict._reductions._make_td"
TENSORDICT_CLASS = "tensordict._td.TensorDict"

_allowed_names_lock = threading.Lock()  # torch keeps the extra names in one global


@dataclass(frozen=True)
class PickledTensorDict:
    """The content of a pickled tensordict; stands in for the library's class, which is not needed.

    Attributes:
        state: The object's pickled attributes; `_tensordict` holds the tensors by name.
    """

    state: Mapping[str, Any]


def _make_tensordict(kind: type[PickledTensorDict], state: Mapping[str, Any]) -> PickledTensorDict:
    """Stand-in for the function that rebuilds a tensordict."""
    if kind is not PickledTensorDict or not isinstance(state, Mapping):
        raise pickle.UnpicklingError("a tensordict must be rebuilt from its class and a dictionary")
    return PickledTensorDict(state)


def load(path: Path | str, *, tensordict: bool = False) -> Any:
    """Reads a file that `torch.save` wrote. All tensors come to the CPU, wherever they were.

    Args:
        path: The file.
        tensordict: Admit the library's pickled form too; such an object becomes a `PickledTensorDict`.

    Returns:
        What was saved: containers, numbers, strings and plain tensors.

    Raises:
        NotFoundError: No such file.
        CorruptDataError: Cut short, or changed since it was written.
        InvalidInputError: Another kind of file, or one that names anything besides tensors; nothing was executed.
    """
    path = Path(path)
    _check_archive(path, _TENSOR_PARTS | ({TENSORDICT_FUNCTION, TENSORDICT_CLASS} if tensordict else frozenset()))
    stand_ins: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = []
    if tensordict:
        stand_ins = [(_make_tensordict, TENSORDICT_FUNCTION), (PickledTensorDict, TENSORDICT_CLASS)]
    try:
        with _allowed_names_lock, torch.serialization.safe_globals(stand_ins):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # torch's loader raises many kinds on a malformed pickle
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CorruptDataError(f"{path}: the archive's pickle cannot be rebuilt: {reason}") from error
    _check_tensors(content, str(path))
    return content


def save(path: Path | str, content: object) -> None:
    """`torch.save` into a file that appears complete or not at all.

    A `PickledTensorDict` is written as the library would write its own.
    """
    path = Path(path)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            torch.save(content, file, pickle_module=_PICKLE)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


class _Pickler(pickle._Pickler):  # the C version cannot name what is not imported
    """Writes the stand-ins under the names of what they stand for."""

    def reducer_override(self, value: object) -> Any:
        """Returns how to rebuild a value, or the name that it is known by."""
        if isinstance(value, PickledTensorDict):
            return _make_tensordict, (PickledTensorDict, value.state)
        if value is _make_tensordict:
            return TENSORDICT_FUNCTION
        return TENSORDICT_CLASS if value is PickledTensorDict else NotImplemented

    def save_global(self, obj: object, name: str | None = None) -> None:
        """Writes a name; the library's are not looked up."""
        if name not in (TENSORDICT_FUNCTION, TENSORDICT_CLASS):
            super().save_global(obj, name)  # type: ignore[misc]  # not in the stubs, as the two below
            return
        module, _, attribute = name.rpartition(".")
        self.write(pickle.GLOBAL + f"{module}\n{attribute}\n".encode())  # type: ignore[attr-defined]
        self.memoize(obj)  # type: ignore[attr-defined]


_PICKLE = SimpleNamespace(__name__="pickle", Pickler=_Pickler)


def _check_archive(path: Path, allowed: frozenset[str]) -> None:
    if not path.is_file():
        raise NotFoundError(f"{path}: no such file")
    with path.open("rb") as file:
        start = file.read(4)
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [entry.filename for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED]
            pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if packed or len(pickles) != 1:
                raise InvalidInputError(
                    str(path),
                    "expected the uncompressed zip archive of torch.save with one data.pkl, got a zip file with "
                    f"{len(pickles)} of them and {len(packed)} compressed entries",
                )
            damaged = archive.testzip()
            if damaged is not None:
                raise CorruptDataError(f"{path}: {damaged!r} does not match its checksum; the file is damaged")
            _check_pickle(archive.read(pickles[0]), allowed, str(path))
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError) as error:
        if start == b"PK\x03\x04":
            raise CorruptDataError(f"{path}: the zip archive is cut short or damaged ({error})") from error
        raise InvalidInputError(
            str(path), f"expected a zip archive written by torch.save, got a file that starts with {start!r}"
        ) from error


def _check_pickle(data: bytes, allowed: frozenset[str], source: str) -> None:
    """Refuses a pickle that names anything unknown, without executing it."""
    try:
        instructions = [(opcode.name, argument) for opcode, argument, _ in pickletools.genops(data)]
    except Exception as error:  # the library raises many kinds on bytes that are no pickle
        raise CorruptDataError(f"{source}: data.pkl is not a pickle ({error})") from error
    indirect = {opcode for opcode, _ in instructions} & _INDIRECT_NAMES
    # The argument is "module name".
    names = {str(argument).replace(" ", ".") for opcode, argument in instructions if opcode == "GLOBAL"}
    unknown = sorted(names - allowed) + sorted(indirect)
    if unknown:
        raise InvalidInputError(
            source,
            f"expected tensors only, got a pickle that names {', '.join(unknown[:5])}: refused, nothing was executed",
        )


def _check_tensors(content: Any, source: str) -> None:
    """Refuses tensors that the file does not really hold: by strides of zero, a small one can pose as any size."""
    seen: set[int] = set()  # containers can hold each other, and themselves
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            if value.numel() * value.element_size() > value.untyped_storage().nbytes():
                raise InvalidInputError(source, f"a tensor of shape {list(value.shape)} has fewer numbers than that")
        elif isinstance(value, PickledTensorDict):
            waiting.append(value.state)
        elif isinstance(value, Mapping):
            waiting.extend(value.values())
        elif isinstance(value, (list, tuple)):
            waiting.extend(value)
