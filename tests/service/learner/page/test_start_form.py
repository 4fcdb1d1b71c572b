"""The form that starts a run: what it says of presets, and how other runs and checkpoints fill it in."""

from __future__ import annotations

import json
from typing import Any

import pytest
from api_server import Api
from playwright.sync_api import Page, expect
from tiny_agents import write_agent
from told_runs import start
from visitor import Visitor

TASK = "mujoco-reacher"


def body(page: Page) -> dict[str, Any]:
    """The request as the form shows it."""
    return json.loads(page.get_by_label("Request as JSON").inner_text())  # type: ignore[no-any-return]


def started(page: Page, api: Api, other: str) -> dict[str, Any]:
    """Starts the run; its settings, as it has them."""
    page.get_by_role("button", name="Start the run").click()
    expect(page.get_by_role("heading", level=1)).not_to_have_text(other)
    expect(page.get_by_role("link", name="New run like this")).to_be_visible()
    return api.http.get(f"/runs/{page.get_by_role('heading', level=1).inner_text()}").json()["spec"]  # type: ignore[no-any-return]


def test_each_setting_says_what_the_preset_gives_it(visitor: Visitor) -> None:
    page = visitor.open("new")
    iterations = page.get_by_label("iterations", exact=True)
    seeding = page.get_by_label("seed env steps", exact=True)
    expect(iterations).to_have_attribute("placeholder", "as preset: 3")
    expect(seeding).to_have_attribute("placeholder", "as preset: 4,000")
    expect(page.get_by_label("model size").locator("option").first).to_have_text("as preset: XS")
    page.get_by_label("total env steps").fill("5_000")
    expect(seeding).to_have_attribute("placeholder", "as preset: 500")
    page.get_by_label("fine-tune a checkpoint").fill("imported/mine")
    expect(page.get_by_label("model size").locator("option").first).to_have_text("as the checkpoint")
    page.get_by_role("radio", name="default").check()
    expect(iterations).to_have_attribute("placeholder", "as preset: 6")
    expect(seeding).to_have_attribute("placeholder", "as preset")
    page.get_by_label("algorithm", exact=True).select_option(label="tdmpc2")
    page.get_by_label("fine-tune a checkpoint").fill("")
    expect(page.get_by_label("language", exact=True).locator("option").first).to_have_text("as preset: false")
    page.locator("summary", has_text="Demonstrations").click()
    page.get_by_label("sets", exact=True).fill('["my_set_1"]')
    assert body(page)["demos"] == {"sets": ["my_set_1"]}


@pytest.mark.parametrize(
    "request_",
    [
        {
            "preset": "laptop",
            "seed": 7,
            "labels": {"experiment": "first"},
            "schedule": {"total_env_steps": 12_345, "seed_env_steps": 4_000},
            "plan": {"iterations": 6, "constraint_start": 99},
            "demos": {"scripted_tasks": ["mujoco-*"]},
        },
        # What the schema has, where the algorithm would give another value.
        {
            "preset": "default",
            "algorithm": {"name": "ppo-untuned", "ppo": {"epochs": 8}},
            "schedule": {"total_env_steps": 1_000_000},
        },
    ],
    ids=["laptop", "default"],
)
def test_a_run_like_another_has_its_settings(visitor: Visitor, api: Api, request_: dict[str, Any]) -> None:
    other = start(api, **request_)
    page = visitor.open(f"run/{other.run_id}")
    page.get_by_role("link", name="New run like this").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Start a run like another")
    assert body(page) == {"tasks": [TASK], **request_}
    assert started(page, api, "Start a run like another") == other.get().spec.model_dump(mode="json")


def test_a_checkpoint_is_fine_tuned(visitor: Visitor, api: Api) -> None:
    other = start(api)
    file = api.learner.settings.folder.run(other.run_id) / "checkpoints" / "100.safetensors"
    file.parent.mkdir(parents=True)
    write_agent(file, [TASK])
    page = visitor.open(f"run/{other.run_id}")
    page.get_by_role("link", name="Fine-tune checkpoint 100").click()
    expect(page.get_by_label("fine-tune a checkpoint")).to_have_value(f"{other.run_id}/100")
    page.get_by_label("Find a task").fill(TASK)
    page.get_by_role("checkbox", name=TASK).check()
    page.get_by_label("total env steps").fill("3000")
    expected = {"preset": "laptop", "tasks": [TASK], "init_from": f"{other.run_id}/100"}
    assert body(page) == {**expected, "schedule": {"total_env_steps": 3_000}}
    spec = started(page, api, "Start a run")
    assert spec["init_from"] == f"{other.run_id}/100"
    assert spec["schedule"]["total_env_steps"] == 3_000
    assert spec["demos"]["scripted_episodes"] == 0

    page.get_by_role("link", name="New run like this").click()  # which fine-tunes the same checkpoint
    expect(page.get_by_role("heading", level=1)).to_have_text("Start a run like another")
    assert body(page) == {**expected, "schedule": {"total_env_steps": 3_000}}
    assert started(page, api, "Start a run like another") == spec
