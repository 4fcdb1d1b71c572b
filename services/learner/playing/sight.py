"""What instances see: the image features of their frames, in runs with images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from newt.client.steps import Observation, Step
from newt.tasks.encoders import EncoderUnavailableError
from newt.vision import FeatureHistory, ImageEncoder
from services.learner.settings import LearnerSettings
from services.learner.waiting import RunFailedError

if TYPE_CHECKING:
    from newt.agent.checkpoints import Checkpoint

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Vision:
    """How frames become features.

    Attributes:
        encoder: Shared by all threads of the process.
        frames: How many frames are seen at once.
    """

    encoder: ImageEncoder
    frames: int

    @property
    def image_dim(self) -> int:
        """Columns of features."""
        return self.encoder.dim * self.frames

    @classmethod
    def load(
        cls, settings: LearnerSettings, image_dim: int | None = None, frames: int | None = None, known_as: str = ""
    ) -> Vision:
        """Loads the encoder that the settings name.

        Args:
            settings: Settings of the learner.
            image_dim: Columns of features that the model takes; None: as many as there are.
            frames: How many frames they stand for; None: as many as fit.
            known_as: Identity of the encoder that the model was trained with; empty if unknown.

        Raises:
            RunFailedError: The encoder is not there, or is not the model's.
        """
        if settings.torch_threads:
            import torch  # takes seconds, which collectors without images need not wait

            torch.set_num_threads(settings.torch_threads)
        from newt.agent import devices  # likewise

        try:
            encoder = ImageEncoder(settings.image_encoder, devices.resolve(settings.image_device or settings.device))
        except (EncoderUnavailableError, ValueError) as error:
            raise RunFailedError(str(error)) from error
        vision = cls(encoder, max(1, (image_dim or 0) // encoder.dim) if frames is None else frames)
        if image_dim is not None and vision.image_dim != image_dim:
            raise RunFailedError(
                f"the model takes {image_dim} columns of image features, the encoder {encoder.name} at "
                f"{settings.image_encoder} makes {encoder.dim} of a frame; set vision.feature_dim to {encoder.dim}, or "
                "name another encoder in NEWT_LEARNER_IMAGE_ENCODER"
            )
        if known_as and known_as != encoder.name:
            raise RunFailedError(
                f"the model was trained with the image encoder {known_as!r}, {settings.image_encoder} is "
                f"{encoder.name!r}; a model never mixes encoders: name the old one in NEWT_LEARNER_IMAGE_ENCODER"
            )
        return vision

    @classmethod
    def of(cls, settings: LearnerSettings, checkpoint: Checkpoint) -> Vision | None:
        """What a checkpoint's agent sees with; None for one without images. Raises RunFailedError as `load`."""
        image_dim = checkpoint.model_config.image_dim
        known_as = str(checkpoint.info.get("image_encoder") or "")
        return cls.load(settings, image_dim, known_as=known_as) if image_dim else None


class Sight:
    """Features of N instances, step by step: X columns, none without vision.

    Args:
        vision: None if the instances have no frames.
        rows: N.
    """

    def __init__(self, vision: Vision | None, rows: int) -> None:
        self._vision = vision
        self._history = FeatureHistory(rows, vision.encoder.dim, vision.frames) if vision else None
        self._nothing: Floats = np.zeros((rows, 0), np.float32)

    @property
    def encoder_name(self) -> str:
        """Identity of the encoder; empty without."""
        return self._vision.encoder.name if self._vision else ""

    def begin(self, rows: Sequence[int], shown: Observation) -> Floats:
        """Episodes have begun in some rows; returns float32[N, X] of all rows."""
        if self._vision is None or self._history is None:
            return self._nothing
        return self._history.begin(rows, self._vision.encoder.encode(_frames(shown.rgb)[list(rows)]))

    def look(self, shown: Observation) -> Floats:
        """All rows have moved, and none was reset; returns float32[N, X]."""
        if self._vision is None or self._history is None:
            return self._nothing
        return self._history.push(self._vision.encoder.encode(_frames(shown.rgb)))

    def step(self, step: Step) -> tuple[Floats, Floats]:
        """All rows have moved, and those that ended show their next episode (AutoReset.SAME_STEP).

        Returns:
            float32[N, X] of what they show now, which in rows that have ended is the next episode, and
            float32[N, X] of what the transition led to, as Step.reached_rgb.
        """
        if self._vision is None or self._history is None:
            return self._nothing, self._nothing
        ended = step.final_rows
        if not len(ended):
            now = self.look(step.observation)
            return now, now
        reached, shown = _frames(step.reached_rgb), _frames(step.observation.rgb)
        features = self._vision.encoder.encode(np.concatenate([reached, shown[ended]]))
        reached_image = self._history.push(features[: len(reached)])
        return self._history.begin(ended.tolist(), features[len(reached) :]), reached_image


def _frames(rgb: npt.NDArray[np.uint8] | None) -> npt.NDArray[np.uint8]:
    assert rgb is not None, "the session was opened without frames"
    return rgb
