"""Episodes whose every value tells where it belongs."""

import numpy as np

from newt.wire.episodes import Episode


def numbered(number: int, transitions: int, terminated: bool = False, image_dim: int = 0) -> Episode:
    """An episode whose every value tells its number and step."""
    steps = np.arange(transitions + 1, dtype=np.float32)
    obs = np.stack([np.full_like(steps, number), steps], axis=1)
    return Episode(
        episode_id=f"e{number}",
        task="t",
        obs=obs,
        action=-obs[:-1],
        reward=100 * number + steps[:-1],
        image=np.repeat(steps[:, None], image_dim, axis=1) if image_dim else None,
        terminated=terminated,
        success=float("nan"),
        score=0.5,
        behaviour=2,
        weights_versions=(1, 2),
        seed=7,
    )
