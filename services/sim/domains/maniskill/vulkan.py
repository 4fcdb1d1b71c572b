"""Which Vulkan driver SAPIEN uses: the GPU's, or SwiftShader, which draws on the CPU.

SAPIEN wants a Vulkan device for every material it creates, also in scenes which are never drawn.
`scripts/maniskill-vulkan.sh` installs SwiftShader next to the Python that runs us.
"""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import Any

from services.sim.domains.base import RENDER_BACKEND_VARIABLE, RenderingError

_CHOICES = ("VK_ICD_FILENAMES", "VK_DRIVER_FILES")  # By these the Vulkan loader lets the user choose; we respect it.
_SOFTWARE_DRIVERS = (
    Path(sys.prefix) / "share/vulkan/icd.d/newt_swiftshader.json",  # Where our script puts it.
    Path("/usr/lib/chromium/vk_swiftshader_icd.json"),  # Debian's Chromium, if it is installed.
)
_GPU_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/dri"))
_REMEDY = (
    "without a GPU, run scripts/maniskill-vulkan.sh, which installs a software driver; with one, install its driver "
    "with Vulkan support. VK_ICD_FILENAMES names the driver's JSON file if it lies in an unusual place."
)


def wants_software() -> bool:
    """Whether to draw on the CPU: as the service's setting says, or because there is no GPU."""
    backend = os.environ.get(RENDER_BACKEND_VARIABLE, "auto")
    if backend != "auto":
        return backend == "osmesa"
    return not any(path.exists() for path in _GPU_DEVICES)


def choose_driver() -> None:
    """Points the Vulkan loader at the software driver, if that is wanted and installed. Call before drawing anything.

    Otherwise the loader looks where drivers are usually registered.
    """
    if any(os.environ.get(name) for name in _CHOICES) or not wants_software():
        return
    for path in _SOFTWARE_DRIVERS:
        if path.exists():
            os.environ["VK_ICD_FILENAMES"] = str(path)
            return


def check_driver() -> None:
    """Asks SAPIEN for what every scene needs.

    Raises:
        RenderingError: There is no driver, or it does not work.
    """
    import sapien.render

    try:
        sapien.render.RenderMaterial()
    except RuntimeError as error:
        raise RenderingError(
            f"ManiSkill needs a working Vulkan driver, also for state observations: {error}; {_REMEDY}"
        ) from error


@functools.cache
def render_device() -> Any:
    """The sapien.Device to draw on.

    Raises:
        RenderingError: There is a driver, but no device that draws.
    """
    import sapien

    problems = []
    # A CUDA device is known by that name; any other, SwiftShader's among them, by its place on the bus.
    for name in ("cuda", "pci:0"):
        try:
            device = sapien.Device(name)
        except RuntimeError as error:
            problems.append(str(error))
            continue
        if device.can_render():
            return device
        problems.append(f"device {name} cannot draw")
    raise RenderingError(f"cannot draw frames: {' / '.join(problems)}; {_REMEDY} State observations do not need this.")
