"""One episode as stored: a fixed header, its names, then the raw arrays with valid dimensions only.

Layout, little-endian, version 1 (T transitions, O, A valid dims, X image columns):

    0   4s   magic "NEP1"
    4   u32  T
    8   u16  O        10  u16  A        12  u32  X (0: no images)
    16  u8   flags (bit 0: terminated, bit 1: the image encoder is named)  17  u8   behaviour
    18  u8   length of the episode id   19  u8   length of the task's name
    20  f32  success  24  f32  score    28  u32  CRC-32 of everything from byte 56 on
    32  u64  min weights version   40  u64  max weights version   48  u64  seed
    56  episode id, task, image encoder (u8 length, name) if named, zeros up to a multiple of 8
        obs f32[T+1, O], action f32[T, A], reward f32[T], image f32[T+1, X]
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

from newt.errors import CorruptDataError
from newt.wire.episodes import Episode

_HEADER = struct.Struct("<4sIHHIBBBBffIQQQ")
_MAGIC = b"NEP1"
_TERMINATED, _ENCODER_NAMED = 1, 2


def pack(episode: Episode) -> bytes:
    """The stored form (see the module)."""
    encoder = episode.image_encoder.encode()
    names = episode.episode_id.encode() + episode.task.encode()
    if encoder:
        names += bytes([len(encoder)]) + encoder
    parts = [names, bytes(-len(names) % 8), episode.obs.tobytes(), episode.action.tobytes(), episode.reward.tobytes()]
    if episode.image is not None:
        parts.append(episode.image.tobytes())
    body = b"".join(parts)
    header = _HEADER.pack(
        _MAGIC,
        episode.transitions,
        episode.obs.shape[1],
        episode.action.shape[1],
        episode.image_dim,
        (_TERMINATED if episode.terminated else 0) | (_ENCODER_NAMED if encoder else 0),
        episode.behaviour,
        len(episode.episode_id),
        len(episode.task),
        episode.success,
        episode.score,
        zlib.crc32(body),
        *episode.weights_versions,
        episode.seed,
    )
    return header + body


def unpack(data: bytes) -> Episode:
    """Reads the stored form; the arrays are views of `data`.

    Raises:
        CorruptDataError: Not an episode, cut short, or changed.
    """
    if len(data) < _HEADER.size or data[:4] != _MAGIC:
        raise CorruptDataError(f"stored episode starts with {data[:4]!r}, expected {_MAGIC!r}; was Redis edited?")
    (_, T, obs_dim, A, X, flags, behaviour, id_length, task_length, success, score, crc, low, high, seed) = (
        _HEADER.unpack_from(data)
    )
    names = _HEADER.size
    end = names + id_length + task_length
    encoder = ""
    if flags & _ENCODER_NAMED:
        length = data[end] if end < len(data) else 0
        encoder = data[end + 1 : end + 1 + length].decode(errors="replace")
        end += 1 + length
    start = end + (names - end) % 8
    size = start + 4 * ((T + 1) * (obs_dim + X) + T * (A + 1))
    if len(data) != size or zlib.crc32(memoryview(data)[names:]) != crc:
        raise CorruptDataError(f"stored episode of {len(data)} bytes fails its checksum (expected {size} bytes)")
    body = np.frombuffer(data, dtype="<f4", offset=start)
    obs, action, reward, image = np.split(body, np.cumsum([(T + 1) * obs_dim, T * A, T]))
    return Episode(
        episode_id=data[names : names + id_length].decode(),
        task=data[names + id_length : names + id_length + task_length].decode(),
        obs=obs.reshape(T + 1, obs_dim),
        action=action.reshape(T, A),
        reward=reward,
        image=image.reshape(T + 1, X) if X else None,
        terminated=bool(flags & _TERMINATED),
        success=success,
        score=score,
        behaviour=behaviour,
        weights_versions=(low, high),
        seed=seed,
        image_encoder=encoder,
    )
