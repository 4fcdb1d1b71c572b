"""Frames of ManiSkill scenes.

The scene that is drawn is not the one that is simulated, but one like it into which the state is copied. So drawing
cannot influence an episode, scenes which nobody looks at carry no meshes and textures for it, and all instances of a
task in a process share one.
"""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import sapien

from services.sim.domains.base import FRAME_SIZE, RenderingError
from services.sim.domains.maniskill.scenes import build_scene
from services.sim.domains.maniskill.vulkan import render_device

_SENSOR_SIZE = 16  # The robots' own cameras are built, but never used.
_LOOKUP_DECLARATION = "uniform sampler2D samplerBRDFLUT;"
_LOOKUP = "texture(samplerBRDFLUT, vec2(roughness, dotNV)).xy"


class Drawing:
    """Draws all states of one task.

    Args:
        task: Its name.

    Raises:
        RenderingError: There is no device to draw on.
    """

    def __init__(self, task: str) -> None:
        device = render_device()
        shader_pack = "minimal" if device.is_cuda() else _software_shader_pack()
        self._env = build_scene(
            task,
            device,
            render_mode="rgb_array",
            human_render_camera_configs={"width": FRAME_SIZE, "height": FRAME_SIZE, "shader_pack": shader_pack},
            sensor_configs={"width": _SENSOR_SIZE, "height": _SENSOR_SIZE, "shader_pack": shader_pack},
        )

    def draw(self, env: Any) -> npt.NDArray[np.uint8]:
        """One frame of another environment of the same task, uint8[224, 224, 3]."""
        self._env.set_state_dict(env.get_state_dict())
        return np.array(self._env.render()[0].numpy(), np.uint8)


@functools.cache
def drawing_for(task: str) -> Drawing:
    """The process's drawing of a task, made at its first use."""
    return Drawing(task)


@functools.cache
def _software_shader_pack() -> str:
    """ManiSkill's default shaders without their lookup table for reflections of the surroundings.

    SAPIEN computes the table before the first frame, which takes a software driver 20 to 40 seconds in every process.
    These scenes have black surroundings, so that the frames are the same without it.

    Returns:
        The name under which ManiSkill knows them.
    """
    from mani_skill.render.shaders import PREBUILT_SHADER_CONFIGS, ShaderConfig

    name = "newt-software"
    pack = PREBUILT_SHADER_CONFIGS["minimal"]
    PREBUILT_SHADER_CONFIGS[name] = ShaderConfig(
        shader_pack=str(_shader_folder() / "minimal"),
        texture_names=pack.texture_names,
        texture_transforms=pack.texture_transforms,
    )
    # ManiSkill sets these for the shaders that it knows.
    for picture in ("Color", "ColorRaw"):
        sapien.render.set_picture_format(picture, "r8g8b8a8unorm")
    sapien.render.set_picture_format("PositionSegmentation", "r16g16b16a16sint")
    return name


def _shader_folder() -> Path:
    """A changed copy of SAPIEN's shaders, shared by all processes of a user: they are read at every new scene."""
    folder = Path(tempfile.gettempdir()) / f"newt-maniskill-shaders-{sapien.__version__}-{os.getuid()}"
    if not folder.exists():
        draft = Path(tempfile.mkdtemp(prefix=f"{folder.name}-"))
        source = Path(sapien.__file__).parent / "vulkan_shader"
        for name in ("minimal", "common"):
            shutil.copytree(source / name, draft / name)
        for path in (draft / "minimal").iterdir():
            lines = [line for line in path.read_text().splitlines() if _LOOKUP_DECLARATION not in line]
            path.write_text("\n".join(lines).replace(_LOOKUP, "vec2(0)") + "\n")
        try:
            draft.rename(folder)
        except OSError:  # Another process was faster.
            shutil.rmtree(draft)
    if folder.stat().st_uid != os.getuid():
        raise RenderingError(f"cannot draw frames: {folder} belongs to somebody else; remove it, or set TMPDIR")
    return folder
