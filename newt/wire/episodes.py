"""Episodes as all parts know them, and their form on the wire."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from newt.wire.tensors import decode, encode
from newt.wire.v1 import replay_pb2

Floats = npt.NDArray[np.float32]


class Behaviour(enum.IntEnum):
    """Who or what chose an episode's actions."""

    UNSPECIFIED = replay_pb2.BEHAVIOUR_UNSPECIFIED
    RANDOM = replay_pb2.BEHAVIOUR_RANDOM
    POLICY = replay_pb2.BEHAVIOUR_POLICY
    PLANNER = replay_pb2.BEHAVIOUR_PLANNER
    EXPERT = replay_pb2.BEHAVIOUR_EXPERT
    """A scripted expert, or an agent's accepted demonstration."""
    MIXED = replay_pb2.BEHAVIOUR_MIXED


@dataclass(frozen=True, eq=False)
class Episode:
    """An episode with valid dimensions (not padded); action and reward t lead from o_t to o_{t+1}.

    Attributes:
        episode_id: Unique within its buffer or demonstration set; the same id again is a duplicate.
        task: Registry name.
        obs: float32[T+1, O].
        action: float32[T, A].
        reward: float32[T].
        terminated: The last transition ended the task itself.
        success: Success at the last step; NaN where undefined.
        score: Score at the last step, in [0, 1]; the one that reports use (Step.corrected_score).
        behaviour: What chose the actions.
        weights_versions: Lowest and highest version that acted; 0 for none.
        seed: Reproduces the episode in the simulator.
        image: float32[T+1, X] features, or None.
        image_encoder: Identity of what made them; empty if unknown.
    """

    episode_id: str
    task: str
    obs: Floats
    action: Floats
    reward: Floats
    terminated: bool = False
    success: float = float("nan")
    score: float = 0.0
    behaviour: int = Behaviour.UNSPECIFIED
    weights_versions: tuple[int, int] = (0, 0)
    seed: int = 0
    image: Floats | None = None
    image_encoder: str = ""

    @property
    def transitions(self) -> int:
        """T."""
        return len(self.reward)

    @property
    def image_dim(self) -> int:
        """X; 0 without images."""
        return 0 if self.image is None else self.image.shape[1]

    def to_proto(self) -> replay_pb2.Episode:
        """The wire's form."""
        return replay_pb2.Episode(
            episode_id=self.episode_id,
            task=self.task,
            obs=encode(self.obs),
            action=encode(self.action),
            reward=encode(self.reward),
            terminated=self.terminated,
            success=self.success,
            score=self.score,
            behaviour=replay_pb2.Behaviour.ValueType(self.behaviour),
            min_weights_version=self.weights_versions[0],
            max_weights_version=self.weights_versions[1],
            seed=self.seed,
            image=None if self.image is None else encode(self.image),
            image_encoder=self.image_encoder,
        )

    @staticmethod
    def from_proto(message: replay_pb2.Episode) -> Episode:
        """From the wire; the arrays are read-only views of the message."""
        image = None
        if message.HasField("image"):
            image = decode(message.image, "image", dtype="f4", shape=[None, None])
        return Episode(
            episode_id=message.episode_id,
            task=message.task,
            obs=decode(message.obs, "obs", dtype="f4", shape=[None, None]),
            action=decode(message.action, "action", dtype="f4", shape=[None, None]),
            reward=decode(message.reward, "reward", dtype="f4", shape=[None]),
            terminated=message.terminated,
            success=message.success,
            score=message.score,
            behaviour=message.behaviour,
            weights_versions=(message.min_weights_version, message.max_weights_version),
            seed=message.seed,
            image=image,
            image_encoder=message.image_encoder,
        )
