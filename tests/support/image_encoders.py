"""Tiny DINOv2 encoders with random weights, saved where the real loading code finds them."""

from pathlib import Path

import torch
import transformers

TINY_DIM = 24


def save_tiny_dinov2(folder: Path, dim: int = TINY_DIM, seed: int = 0) -> Path:
    """Writes an encoder of two layers; the same seed gives the same weights."""
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
