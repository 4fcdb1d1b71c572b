"""What goes with the code: notices, glossary, changelog, guides."""

import re
import tomllib
from pathlib import Path

import newt

ROOT = Path(__file__).resolve().parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def plain(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def rows(page: str) -> list[list[str]]:
    """The cells of all tables of a page, without headers."""
    lines = [line for line in (ROOT / page).read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[0] not in ("Package", "Word")]


def asked_for() -> dict[str, set[str]]:
    """The packages that pyproject.toml names, with the extras that do."""
    found: dict[str, set[str]] = {}
    for extra, wanted in {"all": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}.items():
        for requirement in wanted:
            match = re.match(r"[A-Za-z0-9._-]+", requirement)
            assert match, requirement
            found.setdefault(plain(match.group()), set()).add(extra)
    found.pop("newt")
    return found


def test_every_dependency_has_its_licence_in_the_notices() -> None:
    noticed = {
        plain(name): set(extras.split(", ")) for name, licence, extras in rows("THIRD_PARTY_NOTICES.md") if licence
    }
    assert noticed == asked_for()


def test_the_glossary_gives_each_word_one_meaning() -> None:
    words = [word for row in rows("docs/glossary.md") for word in row[0].split(", ")]
    assert len(words) == len(set(words)) > 50


def test_the_changelog_knows_this_version() -> None:
    assert f"## {newt.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_files_that_the_guide_names_exist() -> None:
    named = re.findall(r"`((?:newt|services|tests|bench|deploy)/[\w/.-]+)`", (ROOT / "CONTRIBUTING.md").read_text())
    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists()] == []
