"""Published checkpoints to ours and back."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pytest
import torch
from published_files import (
    SMALL,
    XL,
    B,
    L,
    Published,
    S,
    Sizes,
    differences,
    masks_of,
    multitask,
    on_cuda,
    published,
    rewrite,
    single_task,
)
from published_files import Agent as PublishedAgent

from newt.agent.batch import UpdateBatch
from newt.agent.checkpoints import load_checkpoint, save_checkpoint
from newt.errors import InvalidInputError
from newt.official.checkpoints import parse_official, read_official, with_images, write_official
from newt.official.layout import expected_shapes, parse_model
from newt.tasks.registry import get_task, select_tasks

TASK = "walker-walk"


def finetuned(sizes: Sizes) -> Published:
    torch.manual_seed(4)
    agent = PublishedAgent(sizes, masks_of([6] * 200), torch.randn(1, 512).repeat(200, 1))
    return published(agent, warmup=0)


VARIANTS: dict[str, tuple[Any, list[str] | None]] = {
    "S": (lambda: multitask(S), None),
    "S, several processes": (lambda: multitask(S, prefix="module."), None),
    "S, before the first update": (lambda: multitask(S, steps=0), None),
    "single-task B": (lambda: single_task(B, 6, pretrained=False, warmup=0), [TASK]),
    "single task, one copy": (lambda: single_task(SMALL, 6, copies=1, warmup=0), [TASK]),
    "L's depths, images": (lambda: multitask(SMALL, images=768), None),
    "never pretrained": (lambda: multitask(SMALL, pretrained=False, warmup=0), None),
    "warm-up complete": (lambda: multitask(SMALL, warmup=3, steps=4), None),
    "fine-tuned": (lambda: finetuned(SMALL), [TASK]),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_published_file_comes_back_equal(variant: str, tmp_path: Path) -> None:
    build, tasks = VARIANTS[variant]
    original = build().content
    source, own, again = tmp_path / "source.pt", tmp_path / "own", tmp_path / "again.pt"
    torch.save(original, source)
    checkpoint = read_official(source, tasks)
    save_checkpoint(own, checkpoint.updater(), checkpoint.info)
    write_official(again, load_checkpoint(own))
    assert differences(original, torch.load(again, weights_only=True)) == []


def test_a_bare_model_comes_back_equal(tmp_path: Path) -> None:
    model = multitask(SMALL).content["model"]
    model["log_std_min"], model["log_std_dif"] = torch.tensor(-10), torch.tensor(12)  # as older files have them
    torch.save(model, tmp_path / "bare.pt")
    checkpoint = read_official(tmp_path / "bare.pt")
    assert checkpoint.updater().value_scale.value.item() == 1
    write_official(tmp_path / "again.pt", checkpoint)
    assert differences(model, torch.load(tmp_path / "again.pt", weights_only=True)) == []


@pytest.mark.parametrize("images", [0, 768])
def test_the_imported_model_computes_what_the_published_one_does(images: int, tmp_path: Path) -> None:
    file = multitask(SMALL, images=images)
    torch.save(file.content, tmp_path / "agent.pt")
    model = read_official(tmp_path / "agent.pt").model()
    names = [task.name for task in select_tasks(["mmbench"])]
    task = torch.tensor([names.index(name) for name in ("atari-pong", "walker-walk", "ms-ant-run")])
    agent, g = file.agent, file.agent._task_emb(task)
    obs, action = torch.randn(3, 128), torch.rand(3, 16)
    image = torch.randn(3, images) if images else None
    with torch.no_grad():
        z = agent._encoder["state"](torch.cat([obs, g, *([] if image is None else [image])], -1))
        torch.testing.assert_close(model.encode(obs, task, image), z)
        x = torch.cat([z, g, action], -1)
        torch.testing.assert_close(model.next(z, action, task), agent._dynamics(x))
        torch.testing.assert_close(model.reward(z, action, task), agent._reward(x))
        for target, critics in ((False, agent._Qs.online._Qs), (True, agent._Qs.target._Qs)):
            expected = torch.stack([critic(x) for critic in critics])
            torch.testing.assert_close(model.Q(z, action, task, target=target), expected)
        mean, raw = agent._pi(torch.cat([z, g], -1)).chunk(2, -1)
        mask = agent._action_masks[task]
        sample = model.policy(z, task, torch.zeros(3, 16))
        torch.testing.assert_close(sample.mean, mean * mask)
        torch.testing.assert_close(sample.log_std, (-10 + 6 * (raw.tanh() + 1)) * mask)


def test_adam_continues_with_the_imported_moments(tmp_path: Path) -> None:
    """One more step with equal gradients moves the imported parameters as it moves the published ones."""
    file = multitask(SMALL, warmup=0)
    torch.save(file.content, tmp_path / "agent.pt")
    updater = read_official(tmp_path / "agent.pt").updater()
    generator = torch.Generator().manual_seed(3)
    online = file.agent._Qs.online._Qs
    layer = updater.model.critics.layer(1).weight
    groups = [{"params": list(online.parameters())}]
    adam = torch.optim.Adam(groups, lr=3e-4, fused=True)
    state = file.content["optim"]
    first = state["param_groups"][3]["params"][0]
    adam.load_state_dict(
        {
            "state": {i: state["state"][first + i] for i in range(len(groups[0]["params"]))},
            "param_groups": [{**state["param_groups"][3], "params": list(range(len(groups[0]["params"])))}],
        }
    )
    layer.grad = torch.randn(layer.shape, generator=generator)
    for member, critic in enumerate(online):
        for parameter in critic.parameters():
            parameter.grad = None
        critic[1].weight.grad = layer.grad[member].clone()
    updater.optimizer.step()
    adam.step()
    torch.testing.assert_close(layer.detach(), torch.stack([critic[1].weight.detach() for critic in online]))


def test_our_training_survives_the_way_out_and_back(tmp_path: Path) -> None:
    torch.save(multitask(SMALL).content, tmp_path / "start.pt")
    updater = read_official(tmp_path / "start.pt").updater()
    batch = UpdateBatch(
        obs=torch.randn(4, 8, 128),
        action=torch.rand(3, 8, 16),
        reward=torch.randn(3, 8),
        terminated=torch.zeros(3, 8, dtype=torch.bool),
        task=torch.arange(8),
        image=None,
    )
    updater.pretrain_update(batch)
    updater.rl_update(batch)
    save_checkpoint(tmp_path / "ours", updater, {})
    ours = load_checkpoint(tmp_path / "ours")
    write_official(tmp_path / "out.pt", ours)
    back = read_official(tmp_path / "out.pt")
    assert back.model_config == ours.model_config
    assert back.table.names == ours.table.names
    assert back.train_config == ours.train_config
    assert torch.equal(back.table.embeddings, ours.table.embeddings)
    before, after = dict(ours.state), dict(back.state)
    assert before.pop("rng").shape == after.pop("rng").shape  # has no place in the format
    assert differences(dict(sorted(before.items())), dict(sorted(after.items()))) == []


def test_rows_follow_the_published_order_on_export(tmp_path: Path) -> None:
    """A run over the same 200 tasks in another order exports as if it had had the published one."""
    torch.save(multitask(SMALL).content, tmp_path / "agent.pt")
    checkpoint = read_official(tmp_path / "agent.pt")
    table = checkpoint.table
    order = list(reversed(range(200)))
    turned = type(table).build(
        [table.names[i] for i in order], table.embeddings[order], table.action_dims[order], table.discounts[order]
    )
    write_official(tmp_path / "a.pt", checkpoint)
    write_official(tmp_path / "b.pt", type(checkpoint)(**{**vars(checkpoint), "table": turned}))
    a, b = (torch.load(tmp_path / name, weights_only=True) for name in ("a.pt", "b.pt"))
    assert differences(a, b) == []


def test_tensors_from_a_gpu_come_to_the_cpu(tmp_path: Path) -> None:
    torch.save(multitask(SMALL).content, tmp_path / "cpu.pt")
    rewrite(tmp_path / "cpu.pt", tmp_path / "cuda.pt", data_pkl=on_cuda)
    a, b = read_official(tmp_path / "cpu.pt"), read_official(tmp_path / "cuda.pt")
    assert all(tensor.device.type == "cpu" for tensor in b.state.values())
    assert differences(a.state, b.state) == []


@pytest.mark.parametrize(
    ("sizes", "name", "total"),
    [(S, "S", 2_143_284), (B, "B", 7_261_566), (L, "L", 20_356_734), (XL, "XL", 81_591_240)],
)
def test_sizes_are_recognised_from_shapes(sizes: Sizes, name: str, total: int) -> None:
    with torch.device("meta"):
        shapes = PublishedAgent(sizes, torch.ones(200, 16), torch.ones(200, 512)).state_dict()
    # One number in place of millions: the check is about shapes.
    model = {key: torch.zeros(()).expand(tensor.shape) for key, tensor in shapes.items()}
    model |= {
        "_action_masks": masks_of([6] * 200),
        "log_std_min": torch.tensor(-10.0),
        "log_std_dif": torch.tensor(12.0),
    }
    config = parse_model(model, "model").config
    assert (config.size, config.language_dim, config.image_dim) == (name, 512, 0)
    learnable = (shape for key, shape in expected_shapes(config).items() if not key.startswith("_Qs.target"))
    assert sum(torch.Size(shape).numel() for shape in learnable) == total


def test_warm_up_is_recovered_from_the_rates(tmp_path: Path) -> None:
    for name, file, expected in (
        ("in", multitask(SMALL, steps=3), 5000),
        ("done", multitask(SMALL, steps=4, warmup=3), 0),
        ("none", multitask(SMALL, warmup=0), 0),
    ):
        torch.save(file.content, tmp_path / name)
        assert read_official(tmp_path / name).train_config.warmup_updates == expected


def test_images_can_be_added_without_changing_the_agent(tmp_path: Path) -> None:
    torch.save(multitask(SMALL).content, tmp_path / "state.pt")
    state = read_official(tmp_path / "state.pt")
    widened = with_images(state)
    task, obs = torch.tensor([0, 7]), torch.randn(2, 128)
    with torch.no_grad():
        z = widened.model().encode(obs, task, torch.randn(2, 768))
        torch.testing.assert_close(z, state.model().encode(obs, task))
    assert widened.updater().updates == 2  # moments were widened too
    write_official(tmp_path / "images.pt", widened)
    assert parse_official(tmp_path / "images.pt").model.config.image_dim == 768
    with pytest.raises(InvalidInputError, match="without images"):
        with_images(widened)


def test_tasks_of_a_single_task_file_must_be_named(tmp_path: Path) -> None:
    torch.save(single_task(SMALL, 6, warmup=0).content, tmp_path / "walker.pt")
    with pytest.raises(InvalidInputError, match=r"single task in 10 equal rows.*--task"):
        read_official(tmp_path / "walker.pt")
    with pytest.raises(InvalidInputError, match=r"allows 6 action entries, but mw-reach has 4"):
        read_official(tmp_path / "walker.pt", ["mw-reach"])
    with pytest.raises(InvalidInputError, match="did you mean"):
        read_official(tmp_path / "walker.pt", ["walker-wlak"])
    with pytest.raises(InvalidInputError, match=r"has 1 task, 2 were named"):
        read_official(tmp_path / "walker.pt", [TASK, "cheetah-run"])
    table = read_official(tmp_path / "walker.pt", [TASK]).table
    assert table.names == (TASK,)
    assert table.discounts.tolist() == pytest.approx([get_task(TASK).discount])


def test_an_unused_table_of_a_single_task_file_is_dropped(tmp_path: Path) -> None:
    content = single_task(SMALL, 6, warmup=0).content
    content["model"]["_task_emb.weight"] = torch.randn(10, 512)
    torch.save(content, tmp_path / "walker.pt")
    assert read_official(tmp_path / "walker.pt", [TASK]).table.language_dim == 0


def edited(path: list[Any], value: Any) -> Any:
    """A change of the entry at a path of keys; None removes it."""

    def change(content: dict[str, Any]) -> None:
        for key in path[:-1]:
            content = content[key]
        if value is None:
            del content[path[-1]]
        else:
            content[path[-1]] = value(content[path[-1]]) if isinstance(value, types.FunctionType) else value

    return change


WRONG = {
    "a part is missing": (["pi_optim"], None, "expected model, optim, pi_optim, scale"),
    "a part too many": (["replay"], 3, r"expected model.*got .*replay"),
    "a tensor is missing": (["model", "_pi.1.ln.bias"], None, r"missing here: \['_pi.1.ln.bias'\]"),
    "a tensor too many": (["model", "_pi.3.bias"], torch.ones(3), r"unknown: \['_pi.3.bias'\]"),
    "a target critic short": (["model", "_Qs.target._Qs.4.2.bias"], None, r"_Qs.target._Qs.4.2.bias"),
    "no encoder": (["model", "_encoder.state.0.weight"], None, "_encoder.state.0.weight"),
    "other shape": (
        ["model", "_reward.1.weight"],
        lambda t: t[:, 1:],
        r"expected float32\[20, 20\], got float32\[20, 19\]",
    ),
    "other type": (["model", "_reward.1.weight"], lambda t: t.half(), r"expected float32\[20, 20\], got float16"),
    "not finite": (["model", "_dynamics.0.bias"], lambda t: t * float("nan"), "_dynamics.0.bias: expected finite"),
    "other log-std": (["model", "log_std_dif"], torch.tensor(7.0), "'log_std_dif' of 12"),
    "torn mask": (["model", "_action_masks"], lambda t: t.flip(1), "ones followed by zeros"),
    "other tasks": (["model", "_action_masks"], lambda t: t.roll(1, 0), r"row \d+ allows \d+ action entries, but"),
    "fewer tasks": (["model", "_action_masks"], lambda t: t[:150], r"_task_emb.weight: expected float32\[150, 512\]"),
    "state of a stranger": (["optim", "state", 999], {}, "states of parameters 0 to"),
    "group short": (["optim", "param_groups"], lambda g: g[:4], "groups of .* parameters"),
    "moment's shape": (
        ["optim", "state", 3, "exp_avg"],
        lambda t: t[1:],
        r"_encoder.state.0.ln.bias.exp_avg: expected",
    ),
    "moment missing": (["pi_optim", "state", 0, "exp_avg_sq"], None, r"pi_optim: _pi.0.weight: expected"),
    "one critic unstepped": (["optim", "state", 40], None, "has moments for 4 of 5 critics"),
    "critic out of step": (["optim", "state", 40, "step"], torch.tensor(9.0), "not stepped equally"),
    "other Adam": (["optim", "param_groups", 2, "betas"], (0.5, 0.9), r"'betas': \(0.5, 0.9\)"),
    "other rate": (["optim", "param_groups", 2, "lr"], 1.0, "expected one rate"),
    "scale": (["scale", "value"], torch.tensor([float("inf")]), "scale: expected a positive"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_refused_with_what_was_expected(name: str, tmp_path: Path) -> None:
    path, value, message = WRONG[name]
    content = multitask(SMALL).content
    edited(path, value)(content)
    torch.save(content, tmp_path / "wrong.pt")
    with pytest.raises(InvalidInputError, match=message) as refused:
        read_official(tmp_path / "wrong.pt")
    assert str(tmp_path / "wrong.pt") in str(refused.value)


def test_agents_without_a_place_in_the_format_are_not_exported(tmp_path: Path) -> None:
    torch.save(multitask(SMALL, steps=0).content, tmp_path / "agent.pt")
    checkpoint = read_official(tmp_path / "agent.pt")
    narrow = type(checkpoint)(**{**vars(checkpoint), "model_config": type(checkpoint.model_config)(obs_dim=64)})
    with pytest.raises(InvalidInputError, match="obs_dim 128, this agent has 64"):
        write_official(tmp_path / "out.pt", narrow)
    assert not (tmp_path / "out.pt").exists()
