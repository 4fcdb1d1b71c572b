"""Small agents as fixtures."""

from collections.abc import Callable

import pytest
from small_agents import build_batch, build_model

from newt.agent.batch import UpdateBatch
from newt.agent.world_model import WorldModel


@pytest.fixture
def make_model() -> Callable[..., WorldModel]:
    return build_model


@pytest.fixture
def make_batch() -> Callable[..., UpdateBatch]:
    return build_batch
