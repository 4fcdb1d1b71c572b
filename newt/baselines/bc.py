"""Behaviour cloning: one encoder and one policy, trained on demonstrations alone; read it from top to bottom.

The paper (arXiv 2511.19584) clones with the encoder and the policy of its agent, told the task by its text, on the
masked error of the pretraining phase. There is no world model, so what the policy sees at step t is the encoded
observation itself, not a prediction from step 0, and all steps of a sequence count alike:

    (1) BC_t = |a'_t - a_t|^2, mean over the entries that the task uses,  a'_t ~ p(h(s_t, g), g)
    (2) L    = mean_t [ BC_t - c_H H(p) ]

The squared error is that of a sampled action, as in the agent's own pretraining: with the entropy bonus, the policy's
standard deviation stays as large as the demonstrations of one situation differ. To act is to take tanh of the mean.
"""

from __future__ import annotations

from torch import Tensor

from newt.agent.batch import UpdateBatch, UpdateNoise
from newt.agent.config import TrainConfig
from newt.agent.update import Metrics, Updater, cloning_error
from newt.agent.world_model import WorldModel


def cloning_loss(
    model: WorldModel, config: TrainConfig, batch: UpdateBatch, noise: UpdateNoise
) -> tuple[Tensor, Tensor, Metrics]:
    """(2) Loss of encoder and policy on a batch of demonstrations.

    Returns:
        The scalar loss, the latents float32[H, B, Z] (attached) and detached metrics.
    """
    assert noise.bc_policy is not None
    image = None if batch.image is None else batch.image[:-1]
    latents = model.encode(batch.obs[:-1], batch.task, image)
    sample = model.policy(latents, batch.task, noise.bc_policy)
    mask = model.action_masks[batch.task]
    bc = cloning_error(sample.action, batch.action * mask, mask)
    loss = (bc - config.entropy_coef * sample.scaled_entropy).mean()
    metrics = {
        "bc": bc.mean(),
        "policy_scaled_entropy": sample.scaled_entropy.mean(),
        "total_loss": loss,
    }
    return loss, latents, {name: value.detach() for name, value in metrics.items()}


class CloneUpdater(Updater):
    """Trains a `policy_only` model by cloning, with the optimiser, warm-up and clipping of pretraining.

    Example:
        >>> import torch
        >>> from newt.agent.config import ModelConfig
        >>> from newt.agent.task_table import TaskTable
        >>> table = TaskTable.build(["reach"], torch.zeros(1, 8), [4], [0.99])
        >>> model = WorldModel(ModelConfig.from_size("XS", language_dim=8, policy_only=True), table)
        >>> CloneUpdater(model, TrainConfig()).updates
        0
    """

    main_loss = staticmethod(cloning_loss)

    def rl_update(self, batch: UpdateBatch, noise: UpdateNoise | None = None) -> Metrics:
        """Raises RuntimeError: nothing is learnt from one's own experience."""
        raise RuntimeError("behaviour cloning has no online phase")
