"""The frozen image encoder: DINOv2, read from local files.

torch and transformers are imported when an encoder is built, not before, and nothing is ever downloaded.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from newt.tasks.encoders import EncoderUnavailableError, fingerprint, identity

if TYPE_CHECKING:
    import torch

Frames = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

DINOV2_BASE = "facebook/dinov2-base"
FRAME_SHAPE = (3, 224, 224)
MAX_BATCH = 256
REMEDY = (
    f"fetch DINOv2 once with `hf download {DINOV2_BASE}`, or name a folder that holds it in NEWT_LEARNER_IMAGE_ENCODER"
)

# Of ImageNet, by channel; what DINOv2 was trained with.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class ImageEncoder:
    """DINOv2: the class token of the final layer, behind its layer norm; frames are neither resized nor cropped.

        encoder = ImageEncoder("facebook/dinov2-base")
        features = encoder.encode(frames)  # uint8[N, 3, 224, 224] to float32[N, 768]

    May be shared by threads: what several of them ask for while the device is busy is encoded in one batch.

    Args:
        source: A folder with configuration and weights, or a repository id to look up in the local cache.
        device: Torch device.

    Attributes:
        dim: X, width of the features; 768 for DINOv2-base.
        name: Identity, `dinov2-<dim>@<first 12 hex digits of the weights' fingerprint>`. Features of different
            identities must not meet in one model.

    Raises:
        EncoderUnavailableError: The weights are not there, are not those of a DINOv2, or transformers is not installed.
        ValueError: There is no such device, or the encoder's patches do not fit into the frames.
    """

    def __init__(self, source: str | Path = DINOV2_BASE, device: str = "cpu") -> None:
        import torch

        self._model = _load(source)
        patch = int(self._model.config.patch_size)
        if FRAME_SHAPE[1] % patch:
            raise ValueError(f"{source}: expected patches that fit into {FRAME_SHAPE[1]} pixels, got {patch} pixels")
        self.dim: int = self._model.config.hidden_size
        self.name = identity(f"dinov2-{self.dim}", fingerprint(self._model))
        try:
            self._device = torch.device(device)
            self._model.to(self._device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"device {device!r} cannot be used: {error}") from error
        self._mean, self._std = (torch.tensor(v, device=self._device).reshape(1, 3, 1, 1) for v in (MEAN, STD))
        self._waiting: list[_Ticket] = []
        self._queue, self._busy = threading.Lock(), threading.Lock()

    def encode(self, frames: Frames) -> Floats:
        """Encodes frames.

        Args:
            frames: uint8[N, 3, 224, 224], RGB.

        Returns:
            float32[N, X].

        Raises:
            ValueError: The frames have another type or shape.
        """
        if frames.dtype != np.uint8 or frames.shape[1:] != FRAME_SHAPE:
            raise ValueError(f"expected frames uint8[N, 3, 224, 224], got {frames.dtype}{list(frames.shape)}")
        ticket = _Ticket(frames)
        with self._queue:
            self._waiting.append(ticket)
        with self._busy:  # whoever gets in serves all who wait
            if not ticket.done:
                with self._queue:
                    tickets, self._waiting = self._waiting, []
                self._serve(tickets)
        if ticket.error is not None:
            raise ticket.error
        assert ticket.features is not None
        return ticket.features

    def _serve(self, tickets: list[_Ticket]) -> None:
        try:
            frames = np.concatenate([ticket.frames for ticket in tickets])
            features = self._forward(frames)
        except Exception as error:
            for ticket in tickets:
                ticket.error = error
        else:
            ends = np.cumsum([len(ticket.frames) for ticket in tickets])
            for ticket, part in zip(tickets, np.split(features, ends[:-1]), strict=True):
                ticket.features = part
        for ticket in tickets:
            ticket.done = True

    def _forward(self, frames: Frames) -> Floats:
        import torch

        features = np.empty((len(frames), self.dim), np.float32)
        with torch.inference_mode():
            for low in range(0, len(frames), MAX_BATCH):
                part = torch.from_numpy(np.array(frames[low : low + MAX_BATCH])).to(self._device)
                pixels = (part.float() / 255 - self._mean) / self._std
                hidden: torch.Tensor = self._model(pixel_values=pixels).last_hidden_state
                features[low : low + MAX_BATCH] = hidden[:, 0].cpu().numpy()
        return features


class _Ticket:
    """One caller's frames and what came of them."""

    def __init__(self, frames: Frames) -> None:
        self.frames = frames
        self.features: Floats | None = None
        self.error: Exception | None = None
        self.done = False


def _load(source: str | Path) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise EncoderUnavailableError("transformers is not installed: install newt's `language` extra") from error
    # A bar per shard would only litter the logs of a service.
    transformers.utils.logging.disable_progress_bar()
    try:
        config = transformers.AutoConfig.from_pretrained(source, local_files_only=True)
        if config.model_type != "dinov2":
            raise EncoderUnavailableError(f"{source} holds a {config.model_type!r}, not a DINOv2: {REMEDY}")
        model, info = transformers.Dinov2Model.from_pretrained(
            source, local_files_only=True, dtype="float32", output_loading_info=True
        )
    except (OSError, ValueError) as error:
        raise EncoderUnavailableError(f"no image encoder weights at {source}: {REMEDY}") from error
    if info["missing_keys"]:
        # Left to itself, the library would go on with random numbers in their place.
        missing = sorted(info["missing_keys"])
        raise EncoderUnavailableError(f"{source} lacks {len(missing)} weights ({missing[0]}, ...): {REMEDY}")
    return model.eval().requires_grad_(False)
