"""`newt demos record`: a policy, and a person at SDL's dummy screen, play on a real simulator service."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pygame
import pytest
from sim_running import RunningServer
from typer.testing import CliRunner

from newt.cli.main import app
from newt.errors import AlreadyExistsError, InvalidInputError, NewtError, NotFoundError, PreconditionError
from newt.recordings.mapping import Columns
from newt.recordings.npz import NpzReader
from newt.recordings.recorded import Recorded

POLICIES = """
import numpy as np
from itertools import count

COUNT = count()

def good(obs):
    return [0.5, 0.0]

def worse(obs):  # only the first two episodes of five steps
    return [0.9 if next(COUNT) < 10 else -0.9, 5.0]

def wide(obs):
    return np.zeros(3)

def nothing():
    return None
"""


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    server = RunningServer(workers=1)
    yield server
    server.close()


@pytest.fixture
def policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_policies.py").write_text(POLICIES)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("NEWT_HOME", str(tmp_path / "home"))
    return "my_policies"


def record(server: RunningServer, out: Path, *arguments: str) -> str:
    command = ["demos", "record", "noop-short", "--out", str(out), "--sim", server.address, *arguments]
    return CliRunner().invoke(app, command, catch_exceptions=False).output


def episodes(file: Path) -> list[Recorded]:
    return list(NpzReader(file).episodes(Columns()))


def test_a_policy_plays_and_its_good_episodes_are_kept(server: RunningServer, tmp_path: Path, policies: str) -> None:
    out = tmp_path / "good.npz"
    output = record(server, out, "--policy", f"{policies}:good", "--episodes", "3", "--all-episodes", "--seed", "4")
    assert "3 of 3 episodes" in output
    played = episodes(out)
    assert [episode.facts.seed for episode in played] == [4, 5, 6]
    assert all((episode.action == [0.5, 0.0]).all() and episode.reward.sum() == 2.5 for episode in played)
    assert [episode.facts.success for episode in played] == [1.0] * 3
    with pytest.raises(AlreadyExistsError, match="--force"):
        record(server, out, "--policy", f"{policies}:good")
    output = record(server, out, "--policy", f"{policies}:worse", "--episodes", "3", "--force")
    assert "2 of 3 episodes" in output  # of which the worst is below the rule's threshold
    assert max(episode.action.max() for episode in episodes(out)) == 1.0  # clipped


@pytest.mark.parametrize(
    ("function", "words"),
    [("wide", "expected 2 finite numbers"), ("nothing", "function of an observation"), ("absent", "MODULE:FUNCTION")],
)
def test_a_policy_that_is_none_is_refused(
    server: RunningServer, tmp_path: Path, policies: str, function: str, words: str
) -> None:
    with pytest.raises(InvalidInputError, match=words):
        record(server, tmp_path / "none.npz", "--policy", f"{policies}:{function}")
    assert not (tmp_path / "none.npz").exists()


def test_a_person_plays(server: RunningServer, tmp_path: Path, policies: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    shown: list[np.ndarray] = []

    def press(caption: str) -> None:
        # Right and up from the first step on; the second episode is thrown away, the fourth is not played out.
        keys = {1: (pygame.K_RIGHT, pygame.K_UP), 8: (pygame.K_r,), 15: (pygame.K_ESCAPE,)}.get(len(shown), ())
        shown.append(pygame.surfarray.array3d(pygame.display.get_surface()))
        for key in keys:
            pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key))

    monkeypatch.setattr(pygame.display, "set_caption", press)
    output = record(server, tmp_path / "mine.npz", "--fps", "1000", "--all-episodes")
    assert "2 of 2 episodes" in output
    first, second = episodes(tmp_path / "mine.npz")
    assert first.action.tolist() == [[0, 0], [1, 1], [1, 1], [1, 1], [1, 1]]
    assert (second.action == 1).all()
    assert [first.facts.seed, second.facts.seed] == [0, 2]
    assert shown[0].shape == (672, 672, 3)
    assert shown[0].mean() != shown[3].mean()  # what the simulator draws
    assert not pygame.display.get_init()


class Gamepad:
    """A virtual one of SDL's own, with four axes: pygame finds and reads it as it does one that is plugged in."""

    def __init__(self) -> None:
        pygame.joystick.init()
        loaded = Path("/proc/self/maps").read_text().splitlines()
        (library,) = {line.split()[-1] for line in loaded if "/libSDL2-2" in line}
        self._sdl = ctypes.CDLL(library)
        self._sdl.SDL_JoystickOpen.restype = ctypes.c_void_p
        number = self._sdl.SDL_JoystickAttachVirtual(1, 4, 2, 0)
        assert number >= 0
        self._handle = ctypes.c_void_p(self._sdl.SDL_JoystickOpen(number))

    def move(self, axis: int, value: float) -> None:
        assert self._sdl.SDL_JoystickSetVirtualAxis(self._handle, axis, ctypes.c_int16(int(32768 * value))) == 0


def test_a_person_plays_with_a_gamepad(
    server: RunningServer, tmp_path: Path, policies: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setenv("SDL_JOYSTICK_ALLOW_BACKGROUND_EVENTS", "1")  # a window that nobody sees has no focus
    pad, shown = Gamepad(), 0

    def hold(caption: str) -> None:
        nonlocal shown
        if shown == 1:
            pad.move(0, 0.5)
            pad.move(1, -1.0)  # up
            pad.move(2, 1.0)  # the task has two columns
        if shown == 3:
            pad.move(0, -0.05)  # a stick at rest
        if shown == 4:
            pad.move(1, 0.0)
            pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_LEFT))
        shown += 1

    monkeypatch.setattr(pygame.display, "set_caption", hold)
    record(server, tmp_path / "mine.npz", "--fps", "1000", "--episodes", "1", "--all-episodes")
    (episode,) = episodes(tmp_path / "mine.npz")
    assert episode.action.tolist() == [[0, 0], [0.5, 1], [0.5, 1], [0, 1], [-1, 0]]
    assert not pygame.joystick.get_init()


def test_without_a_screen_or_a_simulator_there_is_one_clear_error(
    server: RunningServer, tmp_path: Path, policies: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(PreconditionError, match="cannot open a window"):
        record(server, tmp_path / "mine.npz")
    with pytest.raises(NotFoundError, match="--sim HOST:PORT"):
        CliRunner().invoke(app, ["demos", "record", "noop-short", "--out", "x.npz"], catch_exceptions=False)
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setattr(
        pygame.display, "set_caption", lambda caption: pygame.event.post(pygame.event.Event(pygame.QUIT))
    )
    with pytest.raises(NewtError, match="no episode was played"):
        record(server, tmp_path / "mine.npz")
