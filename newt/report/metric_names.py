"""What metrics are called on axes and in legends. The page has the same names (metric_names.js)."""

from __future__ import annotations

from typing import NamedTuple


class MetricName(NamedTuple):
    """How people read a metric.

    Attributes:
        title: What it is.
        unit: Its unit.
        log: Whether it spans decades, so that its axis is logarithmic where all values are positive.
    """

    title: str
    unit: str
    log: bool = False


METRICS = {
    "total_loss": MetricName("Model loss, all terms", "weighted sum", log=True),
    "consistency_loss": MetricName("Prediction of latent states", "squared error", log=True),
    "reward_loss": MetricName("Prediction of rewards", "cross-entropy, nats", log=True),
    "value_loss": MetricName("Critics", "nats; PPO: squared error", log=True),
    "critic_loss": MetricName("Critics", "cross-entropy, nats", log=True),
    "actor_loss": MetricName("Policy loss", "", log=True),
    "policy_loss": MetricName("Policy loss, all terms", "weighted sum", log=True),
    "bc_loss": MetricName("Cloning and entropy (pretraining)", "weighted sum", log=True),
    "bc": MetricName("Actions of demonstrations (pretraining)", "squared error", log=True),
    "policy_bc": MetricName("Policy: actions of the batch", "squared error", log=True),
    "policy_q": MetricName("Value of the policy's actions", "return"),
    "policy_scaled_entropy": MetricName("Entropy of the policy", "scaled, nats"),
    "entropy": MetricName("Entropy of the policy", "nats"),
    "approx_kl": MetricName("Change of the policy since its rollout", "KL divergence, nats"),
    "clip_fraction": MetricName("Probability ratios that are clipped", "share"),
    "explained_variance": MetricName("Returns that the critic explains", "share of their variance"),
    "target_value": MetricName("Targets of the critics", "return, scaled"),
    "reward_scale": MetricName("Rewards are divided by", "reward"),
    "td_target": MetricName("Targets of the critics", "return"),
    "scale": MetricName("Scale of values in the policy loss", "return"),
    "scale_min": MetricName("Smallest scale of a task", "return"),
    "scale_max": MetricName("Largest scale of a task", "return"),
    "grad_norm": MetricName("Gradient of the model, before clipping", "norm", log=True),
    "policy_grad_norm": MetricName("Gradient of the policy, before clipping", "norm", log=True),
    "updates_behind": MetricName("Behind the steps taken", "updates"),
    "weights_age_s": MetricName("Age of the weights that act", "seconds"),
    "weights_age_updates": MetricName("Age of the weights that act", "updates"),
    "blocked_s": MetricName("Waiting for batches", "seconds per report"),
    "updates_per_s": MetricName("Training", "updates per second"),
}
"""What trainers report, in the order of the panels."""


def metric_name(name: str) -> MetricName:
    """The words for a metric; those of one that is not listed are its name."""
    return METRICS.get(name) or MetricName(name.replace("_", " "), "")


def ordered(names: set[str]) -> list[str]:
    """Those that are listed in their order, then the others by name."""
    return [name for name in METRICS if name in names] + sorted(names - METRICS.keys())
