"""What is said to install is what the distribution wants."""

from __future__ import annotations

import doctest
import tomllib
from pathlib import Path

import pytest

from newt.tasks import domains
from newt.tasks.domains import DOMAINS, how_to_install

EXTRAS = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_examples() -> None:
    assert doctest.testmod(domains).failed == 0


@pytest.mark.parametrize("domain", DOMAINS)
def test_what_an_extra_leaves_out_on_python_3_13_is_named_with_its_version(domain: str) -> None:
    pending, wanted = [DOMAINS[domain].service], set()
    while pending:
        for requirement in EXTRAS[pending.pop()]:
            if requirement.startswith("newt["):
                pending += requirement[5:-1].split(",")
            elif requirement.endswith("; python_version < '3.13'"):
                wanted.add(requirement.partition(";")[0])
    assert how_to_install([domain], (3, 12)) == f"install newt[{DOMAINS[domain].service}]"
    assert set(how_to_install([domain], (3, 13)).partition(" --no-deps ")[2].split()) == wanted
