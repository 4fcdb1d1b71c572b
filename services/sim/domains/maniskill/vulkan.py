"""Which Vulkan driver SAPIEN uses: the GPU's if it works, or SwiftShader, which draws on the CPU.

SAPIEN wants a Vulkan device for every material it creates, also in scenes which are never drawn.
`scripts/maniskill-vulkan.sh` installs SwiftShader next to the Python that runs us.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import structlog

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
# A process has one try: where SAPIEN found no driver, it finds none later. So another process tries the GPU's.
_TRY = "import sapien.render; sapien.render.RenderMaterial()"
_TRY_TIMEOUT_S = 60.0

log = structlog.get_logger(__name__)


def wants_software() -> bool:
    """Whether to draw on the CPU: as the service's setting says, or because there is no GPU, or none that draws.

    A container may have a GPU without the driver that draws, which is mounted only for who asks for it.
    """
    backend = os.environ.get(RENDER_BACKEND_VARIABLE, "auto")
    if backend != "auto":
        return backend == "osmesa"
    if not any(path.exists() for path in _GPU_DEVICES):
        return True
    try:
        tried = subprocess.run([sys.executable, "-c", _TRY], capture_output=True, text=True, timeout=_TRY_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        reason = f"no answer within {_TRY_TIMEOUT_S:g} s"
    else:
        if tried.returncode == 0:
            return False
        reason = (tried.stderr.strip().splitlines() or [f"status {tried.returncode}"])[-1]
    log.warning("gpu_does_not_draw", reason=reason)
    return True


def choose_driver() -> None:
    """Points the Vulkan loader at the software driver, if that is wanted and installed. Call before drawing anything.

    Otherwise the loader looks where drivers are usually registered.
    """
    if any(os.environ.get(name) for name in _CHOICES):
        return
    installed = next((path for path in _SOFTWARE_DRIVERS if path.exists()), None)
    if installed is not None and wants_software():
        os.environ["VK_ICD_FILENAMES"] = str(installed)


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
