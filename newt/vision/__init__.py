"""Frames to numbers: the frozen image encoder, and its features over the last few frames."""

from newt.vision.encoder import DINOV2_BASE, FRAME_SHAPE, ImageEncoder
from newt.vision.history import FeatureHistory, stacked

__all__ = ["DINOV2_BASE", "FRAME_SHAPE", "FeatureHistory", "ImageEncoder", "stacked"]
