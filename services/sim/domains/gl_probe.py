"""Draws with an OpenGL platform and reads the frames back: `python -m services.sim.domains.gl_probe egl`."""

from __future__ import annotations

import sys

import mujoco

from services.sim.domains.mujoco_frames import Renderer, fixed_camera

_SCENE = """
<mujoco>
  <worldbody>
    <light pos="0 0 3"/>
    <camera pos="0 0 4"/>
    <geom type="box" size=".5 .5 .5" rgba="1 0 0 1"/>
  </worldbody>
</mujoco>
"""
_FRAMES = 10


def main(backend: str) -> None:
    """Draws a red box. Raises RuntimeError if it cannot be seen."""
    model = mujoco.MjModel.from_xml_string(_SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    renderer = Renderer(model, 64, backend)
    for _ in range(_FRAMES):
        frame = renderer.draw(model, data, fixed_camera(0)).astype(int)
    red = frame[32, 32, 0] - frame[32, 32, 1]
    if red < 50 or frame.std() == 0:
        raise RuntimeError(f"the frame does not show what was drawn: {frame[32, 32].tolist()} in the middle")


if __name__ == "__main__":
    main(sys.argv[1])
