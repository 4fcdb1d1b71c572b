"""`newt tasks`: list, check, experts and sheet on real simulators."""

import io
import re
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from newt.cli.main import app
from newt.cli.task_checks import experts_page
from newt.errors import InvalidInputError, PreconditionError
from newt.tasks import domains
from newt.tasks.pictures import TILE_PX
from newt.tasks.registry import get_task
from newt.tasks.reports import ExpertReport
from services.sim.checks.sheet import MAX_SHEET_BYTES


def newt(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["tasks", *arguments])
    if result.exception is not None:
        raise result.exception
    return result.output


@pytest.mark.parametrize("arguments", [["cup-*"], ["list", "cup-*"]])
def test_listing_is_the_default(arguments: list[str]) -> None:
    output = newt(*arguments)
    assert re.search(r"cup-spin .* corrected", output)
    assert not re.search(r"cup-catch .* corrected", output)
    assert "walker" not in output


def test_everything_and_the_sets_are_listed() -> None:
    assert newt().count("\nmw-") == 49
    assert "test20" in newt("--sets")
    assert "pendulum" in newt("pendulum-swingup", "--texts").lower()


def test_check_prints_a_row_per_task() -> None:
    output = newt("check", "mujoco-reacher", "pygame-point-maze-var1", "--seed", "1", "--jobs", "2")
    assert re.search(r"mujoco-reacher +│ mujoco +│ 11 +│ 2 +│ 50 +│ -\d+\.\d\d +│ 0\.\d{3} +│ - +│ .*ok +│ ok", output)
    assert "pygame-point-maze-var1" in output
    assert "2 ok, 0 failed, 0 without their assets" in output


def test_a_domain_selects_its_held_out_tasks_too() -> None:
    output = newt("check", "pygame-point-maze-var[34]", "--domain", "miniarcade")
    assert "2 ok" in output


def test_a_task_that_fails_is_reported_and_ends_with_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    # The processes that play the tasks are new ones: they see their environment, not this one's patches.
    monkeypatch.setenv("NEWT_SIM_RENDER_BACKEND", "nonsense")
    with pytest.raises(SystemExit) as caught:
        newt("check", "mujoco-reacher")
    assert caught.value.code == 1


def test_what_cannot_be_selected() -> None:
    with pytest.raises(InvalidInputError, match="got 'mojoco', expected one of dmcontrol, "):
        newt("check", "--domain", "mojoco")
    with pytest.raises(InvalidInputError, match="did you mean walker-walk"):
        newt("check", "walker-wal")
    with pytest.raises(InvalidInputError, match="nothing is selected"):
        newt("sheet", "mw-reach", "--domain", "mujoco")


def test_a_domain_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = domains.find_spec
    monkeypatch.setattr(domains, "find_spec", lambda package: None if package == "mujoco" else find_spec(package))
    with pytest.raises(PreconditionError, match=r"not installed: mujoco; install newt\[sim-mujoco\]"):
        newt("check", "mujoco-reacher")


def test_sheet_writes_a_picture_per_domain(tmp_path: Path) -> None:
    folder, tiles = tmp_path / "sheets", tmp_path / "tiles"
    names = ["mujoco-reacher", "mujoco-ant", "pygame-pong"]
    output = newt("sheet", *names, "--folder", str(folder), "--tiles", str(tiles))
    assert sorted(path.name for path in folder.iterdir()) == ["miniarcade.png", "mujoco.png"]
    assert sorted(path.name for path in tiles.iterdir()) == sorted(f"{name}.webp" for name in names)
    assert Image.open(tiles / "pygame-pong.webp").size == (TILE_PX, TILE_PX)
    assert "mujoco.png:2tasks" in "".join(output.split())  # lines are broken anywhere
    for path in folder.iterdir():
        assert path.stat().st_size <= MAX_SHEET_BYTES
        image = Image.open(io.BytesIO(path.read_bytes()))
        assert min(image.size) > 190
        assert len(image.convert("RGB").getcolors(1 << 20) or []) > 4


def test_experts_are_played_and_written_down(tmp_path: Path) -> None:
    page = tmp_path / "experts.md"
    output = newt("experts", "lunarlander-*", "mujoco-*", "--episodes", "1", "--jobs", "1", "--page", str(page))
    assert re.search(r"mujoco-inverted-pendulum +│ 1 +│ 1 +│ - +│ 1\.000 +│ 1\.000", output)
    assert "mujoco-walker" not in output  # It has none.
    assert page.read_text().count("| lunarlander-") == 3
    with pytest.raises(InvalidInputError, match="none of these has a scripted expert"):
        newt("experts", "mujoco-walker")


def test_the_page_of_experts() -> None:
    tasks = [get_task("pendulum-spin"), get_task("mw-reach")]
    reports = {
        "pendulum-spin": ExpertReport(4, 3, float("nan"), 0.81234, 0.5),
        "mw-reach": ExpertReport(4, 2, 0.5, 0.5, 0.0),
    }
    text = experts_page(tasks, reports)
    assert "## DMControl extended" in text
    assert "| pendulum-spin | 4 | 3 | - | 0.812 | 0.500 |" in text
    assert "| mw-reach | 4 | 2 | 50% | 0.500 | 0.000 |" in text
