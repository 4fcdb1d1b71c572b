"""The walls: who may import whom. Read from the sources, so that imports inside of functions count as well."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVICES = sorted(folder.name for folder in (ROOT / "services").iterdir() if (folder / "__init__.py").exists())
PARENT_ROOMS = ("rest", "page", "processes")
CHILD_ROOMS = ("worker", "playing", "training", "collecting", "direct", "evaluating", "demonstrating", "live")


def imports(folder: str) -> Iterator[tuple[str, str]]:
    """Every module below a folder with each name that it imports."""
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files, f"{folder} is empty"
    for file in files:
        where = str(file.relative_to(ROOT))
        package = file.relative_to(ROOT).parent.parts
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((where, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                above = package[: len(package) - node.level + 1] if node.level else ()
                module = ".".join([*above, *([node.module] if node.module else [])])
                yield from ((where, f"{module}.{alias.name}") for alias in node.names)


def reaching(folder: str, *targets: str) -> list[tuple[str, str]]:
    return [
        (where, name)
        for where, name in imports(folder)
        if any(name == target or name.startswith(f"{target}.") for target in targets)
    ]


def test_newt_imports_no_service() -> None:
    assert reaching("newt", "services") == []


@pytest.mark.parametrize("service", SERVICES)
def test_services_never_import_each_other(service: str) -> None:
    others = [f"services.{other}" for other in SERVICES if other != service]
    assert len(others) == len(SERVICES) - 1
    assert reaching(f"services/{service}", *others) == []


@pytest.mark.parametrize("folder", ["newt", "services"])
def test_the_product_imports_no_tests_benchmarks_or_tools(folder: str) -> None:
    assert reaching(folder, "tests", "bench", "deploy", "docs") == []


@pytest.mark.parametrize(("rooms", "others"), [(PARENT_ROOMS, CHILD_ROOMS), (CHILD_ROOMS, PARENT_ROOMS)])
def test_the_learners_parent_and_its_children_are_apart(rooms: tuple[str, ...], others: tuple[str, ...]) -> None:
    targets = [f"services.learner.{other}" for other in others]
    assert [pair for room in rooms for pair in reaching(f"services/learner/{room}", *targets)] == []


def test_the_page_knows_the_api_by_its_routes_alone() -> None:
    assert reaching("services/learner/page", "newt", "services") == []


def test_what_the_learners_processes_share_knows_none_of_them() -> None:
    """All else of the learner: records, checkpoints, weights and so on; __main__ puts the parent together."""
    targets = [f"services.learner.{room}" for room in (*PARENT_ROOMS, *CHILD_ROOMS)]
    apart = tuple(f"services/learner/{room}/" for room in (*PARENT_ROOMS, *CHILD_ROOMS))
    found = [pair for pair in reaching("services/learner", *targets) if not pair[0].startswith(apart)]
    assert [pair for pair in found if pair[0] != "services/learner/__main__.py"] == []


def test_the_rules_see_imports_of_every_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("test_import_rules.ROOT", tmp_path)
    (tmp_path / "newt" / "cli").mkdir(parents=True)
    (tmp_path / "newt" / "cli" / "sly.py").write_text(
        "import services.sim\nfrom services import replay\nfrom services.sim import pool\n"
        "def later():\n    from services.planner.model import load\n"
        "from newt.services import fine\nfrom . import terminal\n"
    )
    found = {name for _, name in reaching("newt", "services")}
    assert found == {"services.sim", "services.replay", "services.sim.pool", "services.planner.model.load"}
    assert ("newt/cli/sly.py", "newt.cli.terminal") in set(imports("newt"))
