"""Tiny DINOv2 encoders with random weights, of the width that tests have."""

from pathlib import Path

from newt.vision import tiny

TINY_DIM = 24


def save_tiny_dinov2(folder: Path, dim: int = TINY_DIM, seed: int = 0) -> Path:
    """Writes an encoder of two layers; the same seed gives the same weights."""
    return tiny.save_tiny_dinov2(folder, dim, seed)
