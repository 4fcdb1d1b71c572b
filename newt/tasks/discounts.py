"""The per-task discount: long episodes look further ahead."""

MIN_DISCOUNT = 0.95
MAX_DISCOUNT = 0.995
# The heuristic lets the effective horizon 1 / (1 - γ) be a fifth of the episode.
EPISODE_FRACTION = 5.0


def discount(episode_length: int, override: float | None = None) -> float:
    """Discount γ of a task, as in the TD-MPC2 family.

    γ = clip((T/5 − 1) / (T/5), 0.95, 0.995) with T the episode length in agent steps, unless the task
    states its own.

    Args:
        episode_length: T, agent steps per episode (after action repeat), at least 1.
        override: The task's own discount in (0, 1], which wins over the heuristic.

    Returns:
        γ in (0, 1].

    Raises:
        ValueError: If the episode length or the override is out of range.
    """
    if override is not None:
        if not 0.0 < override <= 1.0:
            raise ValueError(f"discount override must be in (0, 1], got {override}")
        return override
    if episode_length < 1:
        raise ValueError(f"episode_length must be at least 1 agent step, got {episode_length}")
    horizon = episode_length / EPISODE_FRACTION
    return min(max((horizon - 1.0) / horizon, MIN_DISCOUNT), MAX_DISCOUNT)
