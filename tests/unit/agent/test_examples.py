"""The examples in the agent's docstrings."""

import doctest
from importlib import import_module

import pytest

MODULES = ["compilation", "config", "layers", "planning", "regression", "task_table", "update", "world_model"]


@pytest.mark.parametrize("module", MODULES)
def test_examples(module: str) -> None:
    assert doctest.testmod(import_module(f"newt.agent.{module}")).failed == 0


def test_there_are_examples_of_the_classes_that_users_build() -> None:
    shown = {
        test.name.rpartition(".")[2]
        for module in MODULES
        for test in doctest.DocTestFinder(exclude_empty=True).find(import_module(f"newt.agent.{module}"))
        if test.examples
    }
    assert {"Planner", "Updater", "ModelConfig"} <= shown
