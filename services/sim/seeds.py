"""The sequence of episode seeds of an instance."""

from __future__ import annotations

_MASK = (1 << 64) - 1


def mix(origin: int, episode: int) -> int:
    """Seed of an instance's k-th episode: SplitMix64 (Steele et al., 2014) of the origin's k-th stream element.

    Neighbouring origins give unrelated sequences, because the origin is scrambled before the stream starts.

    Args:
        origin: 0..2**64-1.
        episode: Position in the sequence, from 0.

    Returns:
        0..2**64-1.
    """
    return _scramble(_scramble(origin) + (episode + 1) * 0x9E3779B97F4A7C15)


def _scramble(value: int) -> int:
    value &= _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
