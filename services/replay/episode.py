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
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from newt.errors import CorruptDataError
from newt.wire import tensors
from newt.wire.v1 import replay_pb2

_HEADER = struct.Struct("<4sIHHIBBBBffIQQQ")
_MAGIC = b"NEP1"
_TERMINATED, _ENCODER_NAMED = 1, 2

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Episode:
    """An episode with valid dimensions; row t holds o_t, action and reward t lead from o_t to o_{t+1}.

    Attributes:
        episode_id: Unique within its buffer or demo set.
        task: Name of its task.
        obs: float32[T+1, O].
        action: float32[T, A].
        reward: float32[T].
        image: float32[T+1, X] or None.
        terminated: The last transition ended the task itself.
        success: At the last step; NaN where undefined.
        score: At the last step.
        behaviour: Code of the proto's Behaviour.
        min_weights_version: Lowest version that acted.
        max_weights_version: Highest version that acted.
        seed: Reproduces the episode in the simulator.
        image_encoder: Identity of what made `image`; empty if unknown.
    """

    episode_id: str
    task: str
    obs: Floats
    action: Floats
    reward: Floats
    image: Floats | None
    terminated: bool
    success: float
    score: float
    behaviour: int
    min_weights_version: int
    max_weights_version: int
    seed: int
    image_encoder: str = ""

    @property
    def transitions(self) -> int:
        """T."""
        return len(self.reward)

    @property
    def image_dim(self) -> int:
        """X; 0 without images."""
        return 0 if self.image is None else self.image.shape[1]

    def pack(self) -> bytes:
        """The stored form (see the module)."""
        encoder = self.image_encoder.encode()
        names = self.episode_id.encode() + self.task.encode()
        if encoder:
            names += bytes([len(encoder)]) + encoder
        parts = [names, bytes(-len(names) % 8), self.obs.tobytes(), self.action.tobytes(), self.reward.tobytes()]
        if self.image is not None:
            parts.append(self.image.tobytes())
        body = b"".join(parts)
        header = _HEADER.pack(
            _MAGIC,
            self.transitions,
            self.obs.shape[1],
            self.action.shape[1],
            self.image_dim,
            (_TERMINATED if self.terminated else 0) | (_ENCODER_NAMED if encoder else 0),
            self.behaviour,
            len(self.episode_id),
            len(self.task),
            self.success,
            self.score,
            zlib.crc32(body),
            self.min_weights_version,
            self.max_weights_version,
            self.seed,
        )
        return header + body

    @staticmethod
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
            min_weights_version=low,
            max_weights_version=high,
            seed=seed,
            image_encoder=encoder,
        )

    def to_proto(self) -> replay_pb2.Episode:
        """The wire's form."""
        optional: dict[str, Any] = {} if self.image is None else {"image": tensors.encode(self.image)}
        return replay_pb2.Episode(
            episode_id=self.episode_id,
            task=self.task,
            obs=tensors.encode(self.obs),
            action=tensors.encode(self.action),
            reward=tensors.encode(self.reward),
            terminated=self.terminated,
            success=self.success,
            score=self.score,
            behaviour=replay_pb2.Behaviour.ValueType(self.behaviour),
            min_weights_version=self.min_weights_version,
            max_weights_version=self.max_weights_version,
            seed=self.seed,
            image_encoder=self.image_encoder,
            **optional,
        )
