"""Offscreen frames of MuJoCo models, for all domains that run on MuJoCo.

Nothing here touches a graphics library before the first frame, so that state-only sessions need none. One drawing
context per task and process is shared by all instances of the task: a context holds meshes and textures, which are
the same for all of them. The libraries' own renderers keep one per instance, and gymnasium's does not switch
contexts when several environments live in one process.
"""

from __future__ import annotations

import atexit
import importlib
from typing import Any

import mujoco
import numpy as np
import numpy.typing as npt

from services.sim.domains.gl_backends import chosen_backend


def fixed_camera(camera_id: int) -> Any:
    """A camera of the model, as mujoco.MjvCamera."""
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
    camera.fixedcamid = camera_id
    return camera


class Renderer:
    """Draws states of models with the same assets.

    Args:
        model: mujoco.MjModel which provides meshes and textures.
        size: Height and width of the frames, pixels.
        backend: OpenGL platform; the one that works here if absent.

    Raises:
        RenderingError: No backend works.
    """

    def __init__(self, model: Any, size: int, backend: str | None = None) -> None:
        # Models ask for buffers far larger than our frames.
        model.vis.global_.offwidth = model.vis.global_.offheight = size
        self._gl = importlib.import_module(f"mujoco.{backend or chosen_backend()}").GLContext(size, size)
        self._gl.make_current()
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=2000)
        self._option = mujoco.MjvOption()
        self._perturb = mujoco.MjvPerturb()
        self._viewport = mujoco.MjrRect(0, 0, size, size)
        self._size = size

    def draw(self, model: Any, data: Any, camera: Any) -> npt.NDArray[np.uint8]:
        """One frame, uint8[size, size, 3], top row first. Reads the state, changes nothing."""
        self._gl.make_current()
        mujoco.mjv_updateScene(
            model, data, self._option, self._perturb, camera, mujoco.mjtCatBit.mjCAT_ALL, self._scene
        )
        mujoco.mjr_render(self._viewport, self._scene, self._context)
        frame = np.empty((self._size, self._size, 3), np.uint8)
        mujoco.mjr_readPixels(frame, None, self._viewport, self._context)
        return frame[::-1]  # OpenGL counts rows from the bottom.


_renderers: dict[str, Renderer] = {}


def renderer_for(task: str, model: Any, size: int) -> Renderer:
    """The process's renderer of a task, made at its first use."""
    if task not in _renderers:
        _renderers[task] = Renderer(model, size)
        if len(_renderers) == 1:
            atexit.register(_renderers.clear)  # Before what they need to free themselves is gone.
    return _renderers[task]
