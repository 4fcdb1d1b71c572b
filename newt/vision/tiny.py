"""A tiny DINOv2 with random weights, where the real one cannot run: it shows that images work, not how well.

    python -m newt.vision.tiny FOLDER

writes one of 32 columns, which NEWT_LEARNER_IMAGE_ENCODER=FOLDER and `vision.feature_dim: 32` use.
"""

from __future__ import annotations

import sys
from pathlib import Path

TINY_DIM = 32


def save_tiny_dinov2(folder: Path, dim: int = TINY_DIM, seed: int = 0) -> Path:
    """Writes an encoder of two layers where the real loading code finds it; the same seed gives the same weights.

    Args:
        folder: Folder to write.
        dim: Width of its features, a multiple of 2.
        seed: Source of the weights.
    """
    import torch
    import transformers

    config = transformers.Dinov2Config(
        hidden_size=dim, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=56, patch_size=28
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.Dinov2Model(config)
        # The library starts with tokens and positions near zero, which would hide what is done to the pixels.
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m newt.vision.tiny FOLDER")
    print(save_tiny_dinov2(Path(sys.argv[1])))
