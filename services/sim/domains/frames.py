"""Pictures of any simulator, brought to the size of a frame."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from services.sim.domains.base import FRAME_SIZE


def resize(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Antialiased bilinear resize of uint8[H, W, 3] to uint8[224, 224, 3]."""
    image = Image.fromarray(frame).resize((FRAME_SIZE, FRAME_SIZE), Image.Resampling.BILINEAR)
    return np.asarray(image)
