"""Small task tables."""

import pytest
import torch

from newt.agent.task_table import TaskTable


@pytest.fixture
def table() -> TaskTable:
    """Two tasks: of 1 and of 2 actions, padded to 3, with texts of width 4."""
    return TaskTable.build(
        ["one", "two"], torch.randn(2, 4, generator=torch.Generator().manual_seed(0)), [1, 2], [0.9, 0.5], 3
    )
