"""Optional torch.compile for updates and planning. Results equal eager's to float tolerance.

What is compiled are functions whose weights come in through their arguments: no compiled closure is ever stored in a
module. A copied network, such as the target critics, and weights loaded later therefore act with their own numbers.
"""

from __future__ import annotations

import inspect
import os
import shutil
import threading
from collections.abc import Callable
from copy import copy
from functools import cache
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor

from newt.agent.config import ConfigError
from newt.agent.inference import GatheredMLPs, InferenceModel, PreparedMLP, TaskTerms
from newt.agent.world_model import WorldModel

P = ParamSpec("P")
R = TypeVar("R")

BACKEND = "inductor"
# Variants of one function that may be compiled, for models of several shapes. Torch's 8 are used up by two models.
_MAX_VARIANTS = 128


def prepare(folder: Path | None) -> None:
    """Makes ready to compile; call before anything is compiled.

    Args:
        folder: Keeps the compiled code, so that the next start finds it; None leaves the place to torch. A place
            named by TORCHINDUCTOR_CACHE_DIR wins.

    Raises:
        ConfigError: There is no C++ compiler, which both the CPU's and the GPU's code need.
    """
    compilers = [os.environ.get("CXX", ""), "g++", "clang++"]
    if not any(shutil.which(name) for name in compilers if name):
        raise ConfigError("torch.compile needs a C++ compiler: install g++, name one in CXX, or switch compilation off")
    if folder is not None:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))


@cache
def compiled(function: Callable[P, R], backend: str = BACKEND) -> Callable[P, R]:
    """Compiles a whole function for the shapes it is first called with; forward and backward.

    Args:
        function: The function, of tensors, modules and settings.
        backend: Backend of torch.compile.
    """
    return cast(Callable[P, R], _compile(function, backend, dynamic=False))


class CompiledInferenceModel(InferenceModel):
    """An `InferenceModel` whose networks are compiled, once for all models of one shape and all numbers of rows.

    Attributes:
        generated: Set once there is code to run; until then it computes eagerly. Set from the start unless somebody
            puts another event here, who sets that when a `twin` has made the code.

    Example:
        >>> from newt.agent.config import ModelConfig
        >>> from newt.agent.task_table import TaskTable
        >>> table = TaskTable.build(["reach"], torch.zeros(1, 8), [4], [0.99])
        >>> model = WorldModel(ModelConfig.from_size("XS", language_dim=8), table)
        >>> CompiledInferenceModel.from_model(model).dtype
        torch.float32
    """

    backend = BACKEND

    def __init__(self, model: WorldModel, dtype: torch.dtype, device: torch.device, gather: bool) -> None:
        """Uses `from_model`."""
        super().__init__(model, dtype, device, gather)
        self.generated = threading.Event()
        self.generated.set()
        # Numbers of rows and samples vary from call to call, sizes of weights do not.
        for tensor in self.tensors():
            torch._dynamo.mark_static(tensor)

    @property
    def has_code(self) -> bool:
        """Whether there is code to run."""
        return self.generated.is_set()

    def twin(self) -> CompiledInferenceModel:
        """A model of the same tensors that compiles when it is first used, in whatever thread that is."""
        twin = copy(self)
        twin.generated = threading.Event()
        twin.generated.set()
        return twin

    def step(self, terms: TaskTerms, z: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """As `InferenceModel.step`."""
        result: tuple[Tensor, Tensor] = self._code_of(InferenceModel.step)(self, terms, z, action)
        return result

    def policy(self, terms: TaskTerms, z: Tensor, noise: Tensor | None) -> Tensor:
        """As `InferenceModel.policy`."""
        action: Tensor = self._code_of(InferenceModel.policy)(self, terms, z, noise)
        return action

    def criticise(self, critic: PreparedMLP, x: Tensor, shift: Tensor) -> Tensor:
        """As `InferenceModel.criticise`."""
        value: Tensor = self._code_of(InferenceModel.criticise)(self, critic, x, shift)
        return value

    def criticise_in_pairs(self, critics: GatheredMLPs, x: Tensor, shifts: Tensor, pairs: Tensor) -> Tensor:
        """As `InferenceModel.criticise_in_pairs`."""
        value: Tensor = self._code_of(InferenceModel.criticise_in_pairs)(self, critics, x, shifts, pairs)
        return value

    def _code_of(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return _for_any_rows(function, self.backend) if self.has_code else function


@cache
def _for_any_rows(function: Callable[..., Any], backend: str) -> Callable[..., Any]:
    return _compile(function, backend, dynamic=True)


def _compile(function: Callable[..., Any], backend: str, *, dynamic: bool) -> Callable[..., Any]:
    compile_it: Any = torch.compile  # its overloads, as typed, lack two of its arguments
    known = inspect.signature(compile_it).parameters
    limits: dict[str, Any] = {"recompile_limit": _MAX_VARIANTS, "isolate_recompiles": True}
    if not limits.keys() <= known.keys():  # before torch 2.13 there is one limit for all functions
        limits = {}
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MAX_VARIANTS)
    result: Callable[..., Any] = compile_it(function, backend=backend, fullgraph=True, dynamic=dynamic, **limits)
    return result
