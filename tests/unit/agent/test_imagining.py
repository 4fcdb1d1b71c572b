"""Imagined steps against the modules themselves, one row and one step at a time."""

from collections.abc import Callable

import pytest
import torch

from newt.agent.imagining import imagine, state_value
from newt.agent.inference import InferenceModel
from newt.agent.world_model import WorldModel

MakeModel = Callable[..., WorldModel]
T = 5


@pytest.mark.parametrize("planned", [True, False])
@torch.no_grad()
def test_it_is_what_the_world_model_says_step_by_step(make_model: MakeModel, planned: bool) -> None:
    model = make_model()
    inference = InferenceModel.from_model(model)
    generator = torch.Generator().manual_seed(3)
    obs, task = torch.randn(3, 10, generator=generator), torch.arange(3)
    valid = model.action_masks[task]
    actions = (torch.rand(3, T, 4, generator=generator) * 2 - 1) * valid[:, None] if planned else None
    found = imagine(inference, obs, task, T, actions)

    def value(z: torch.Tensor) -> torch.Tensor:
        action = model.policy(z, task, torch.zeros(3, 4)).action
        every = [torch.tensor([k, k]) for k in range(model.config.num_critics)]
        return torch.stack([model.value(z, action, task, pair, "avg") for pair in every]).mean(0)

    z = model.encode(obs, task)
    torch.testing.assert_close(state_value(inference, obs, task), value(z), rtol=1e-3, atol=1e-3)
    for t in range(T):
        action = actions[:, t] if actions is not None else model.policy(z, task, torch.zeros(3, 4)).action
        torch.testing.assert_close(found.action[:, t], action, rtol=0, atol=1e-3)
        reward = model.codec.decode(model.reward(z, action, task))
        torch.testing.assert_close(found.reward[:, t], reward, rtol=1e-3, atol=1e-3)
        z = model.next(z, action, task)
        torch.testing.assert_close(found.value[:, t], value(z), rtol=1e-3, atol=1e-3)
