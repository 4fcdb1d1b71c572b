"""What the agent knows of each task: instruction embedding, action size, discount."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from newt.wire.limits import PADDED_ACTION_DIM


@dataclass(frozen=True, eq=False)
class TaskTable:
    """K tasks; a task index everywhere in the agent is a row of this table.

    Attributes:
        names: K distinct task names.
        embeddings: float32[K, G] language embeddings, not normalised; G = 0 for an agent without language.
        action_dims: int64[K], valid action entries of each task; the first ones of the padded action.
        discounts: float32[K], in (0, 1].
        max_action_dim: A, width of the padded action.
    """

    names: tuple[str, ...]
    embeddings: Tensor
    action_dims: Tensor
    discounts: Tensor
    max_action_dim: int = PADDED_ACTION_DIM

    @classmethod
    def build(
        cls,
        names: Sequence[str],
        embeddings: object,
        action_dims: Sequence[int],
        discounts: Sequence[float],
        max_action_dim: int = PADDED_ACTION_DIM,
    ) -> TaskTable:
        """Builds from plain sequences or arrays; `embeddings` is anything `torch.as_tensor` takes."""
        return cls(
            tuple(names),
            torch.as_tensor(embeddings, dtype=torch.float32).reshape(len(names), -1),
            torch.as_tensor(action_dims, dtype=torch.int64),
            torch.as_tensor(discounts, dtype=torch.float32),
            max_action_dim,
        )

    def __post_init__(self) -> None:
        K = len(self.names)
        if K == 0 or len(set(self.names)) != K:
            raise ValueError(f"task names must be distinct and at least one, got {list(self.names)[:10]}")
        for name in ("embeddings", "action_dims", "discounts"):
            rows = getattr(self, name).shape[:1]
            if rows != (K,):
                raise ValueError(f"{name} must have {K} rows, one per task, got shape {tuple(rows)}")
        if self.embeddings.ndim != 2 or not bool(torch.isfinite(self.embeddings).all()):
            raise ValueError(f"embeddings must be a finite matrix, got shape {tuple(self.embeddings.shape)}")
        if not bool(((self.action_dims >= 1) & (self.action_dims <= self.max_action_dim)).all()):
            raise ValueError(f"action_dims must lie in 1..{self.max_action_dim}, got {self.action_dims.tolist()}")
        if not bool(((self.discounts > 0) & (self.discounts <= 1)).all()):
            raise ValueError(f"discounts must lie in (0, 1], got {self.discounts.tolist()}")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def language_dim(self) -> int:
        """G, width of the embeddings."""
        return self.embeddings.shape[1]

    @cached_property
    def masks(self) -> Tensor:
        """float32[K, A]: 1 on valid action entries, 0 elsewhere."""
        return (torch.arange(self.max_action_dim) < self.action_dims[:, None]).float()

    def index(self, name: str) -> int:
        """Returns a task's row.

        Raises:
            KeyError: The table has no such task.
        """
        try:
            return self.names.index(name)
        except ValueError:
            raise KeyError(f"task {name!r} is not in this agent's table of {len(self)} tasks") from None
