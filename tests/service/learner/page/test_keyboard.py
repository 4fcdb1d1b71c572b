"""The whole page by keys alone, in a real browser, on a simulator of games and a small agent."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from api_server import build, serving
from keyboard import Keyboard
from playwright.sync_api import Browser, Page, expect
from tiny_agents import write_agent
from told_runs import attempt_of, start, store, tell
from visitor import Visitor

from newt.local.redis_server import RedisServer
from services.sim.service import SimService
from services.sim.settings import SimSettings

TASK = "pygame-bird-attack"


def zoom_by_keys(page: Page, keys: Keyboard) -> None:
    """Into the last half of updates 0 to 200, one step back, and all again; other charts follow."""
    value, total = (page.get_by_role("group", name=re.compile(f"^{name}. ")) for name in ("Critics", "Model loss"))
    page.reload()
    expect(page.get_by_role("region", name="Critics")).to_contain_text("10 of 10 points")  # what was told is the last
    keys.go(value)
    everything = value.screenshot()
    for pressed, shown in (("+", "50%2C150"), ("+", "75%2C125"), ("-", "50%2C150"), ("ArrowLeft", "25%2C125")):
        keys.press(pressed)
        expect(page).to_have_url(re.compile(f"zoom={shown}"))
    keys.press("ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight")
    expect(page).to_have_url(re.compile("zoom=100%2C200"))  # and no further
    keys.stands()
    assert value.screenshot() != everything
    keys.go(total, "Shift+Tab")  # the same part is shown there
    keys.press("0")
    expect(page).not_to_have_url(re.compile("zoom="))
    expect(total).to_be_focused()


@pytest.mark.long
def test_every_view_is_used_by_keys_alone(browser: Browser, shared_redis: RedisServer, tmp_path: Path) -> None:
    arcade = SimService(SimSettings(port=0, domains=("miniarcade",), workers=1, log_level="ERROR"))
    arcade.server.start()
    arcade.server.set_ready(True)
    agent = tmp_path / "runs" / "run-tiny" / "checkpoints" / "100.safetensors"
    agent.parent.mkdir(parents=True)
    write_agent(agent, [TASK])
    sims = {"miniarcade": arcade.server.address, "mujoco": "127.0.0.1:9"}
    learner = build(shared_redis.url, tmp_path, device="cpu", sims=sims, torch_threads=1)
    try:
        with serving(learner) as api:
            other = start(api, tasks=[TASK], name="beside", plan={"iterations": 2})
            tell(other, "collecting", 500)
            context = browser.new_context(viewport={"width": 1280, "height": 900})
            visitor = Visitor(context.new_page(), f"http://127.0.0.1:{api.port}")
            page = visitor.open("?q=beside")
            keys, main = Keyboard(page), page.locator("main")
            expect(page.get_by_role("link", name=other.run_id)).to_be_visible()
            keys.walk()
            keys.go(page.locator(".skip"))
            keys.press("Enter")
            expect(main).to_be_focused()
            expect(page.get_by_label("Search runs")).to_have_value("beside")  # it is the same view

            keys.go(page.get_by_role("navigation").get_by_role("link", name="Start a run"))
            keys.press("Enter")
            expect(main).to_be_focused()
            keys.go(page.get_by_role("radio", name=re.compile("^laptop")))
            keys.press("ArrowDown")
            expect(page.get_by_role("radio", name=re.compile("^default"))).to_be_checked()
            keys.press("ArrowUp")
            keys.go(page.get_by_label("Find a task"))
            keys.type(TASK)
            chosen = page.get_by_role("button", name=f"Leave out {TASK}")
            keys.go(page.get_by_role("checkbox", name=re.compile(TASK)))
            keys.press("Space")
            keys.go(chosen, "Shift+Tab")
            keys.press("Enter")
            expect(chosen).to_have_count(0)
            keys.stands()
            keys.go(page.get_by_role("checkbox", name=re.compile(TASK)))
            keys.press("Space")
            keys.walk()
            keys.go(page.get_by_label("name", exact=True))
            keys.type("by keys")
            total = page.get_by_label("total env steps")
            keys.go(total)
            keys.type("-5")
            keys.go(page.get_by_role("button", name="Start the run"))
            keys.press("Space")
            expect(total).to_be_focused()  # what is wrong
            visitor.wrong.clear()  # the browser itself notes the 422
            keys.type("5000")
            keys.press("Enter")
            expect(page.get_by_role("heading", level=1)).to_contain_text("by-keys-")
            expect(main).to_be_focused()
            run_id = page.get_by_role("heading", level=1).inner_text()

            writer = attempt_of(api, run_id)
            store(api, writer, [("trainer", 100 * n, 10 * n, {"value_loss": 1.0, "total_loss": 2.0}) for n in range(9)])
            tell(writer, "collecting for keys", 1_000)
            expect(page.get_by_text("collecting for keys")).to_be_visible()
            keys.walk()
            keys.go(page.get_by_role("button", name="Updates"))
            keys.press("Enter")
            expect(page).to_have_url(re.compile("x=updates"))
            expect(page.get_by_role("button", name="Updates")).to_be_focused()
            keys.go(page.get_by_label("Smoothing"))
            keys.press("ArrowRight")
            expect(page).to_have_url(re.compile("smooth=0.61"))
            zoom_by_keys(page, keys)
            keys.go(page.get_by_role("button", name="Write tags and notes"), "Shift+Tab")
            keys.press("Enter")
            expect(page.get_by_label("Notes (Markdown)")).to_be_focused()
            keys.type("Started by keys.")
            keys.go(page.get_by_role("button", name="Save"))
            keys.press("Enter")
            expect(page.get_by_role("button", name="Edit")).to_be_focused()
            cancel = page.get_by_role("button", name="Cancel run")
            keys.go(cancel, "Shift+Tab")
            keys.press("Enter")
            expect(page.get_by_role("button", name="Keep it")).to_be_focused()
            keys.press("Escape")
            expect(page.get_by_role("dialog")).to_have_count(0)
            expect(cancel).to_be_focused()
            keys.press("Enter", "Tab", "Enter")
            expect(page.get_by_role("button", name="Resume run")).to_be_visible()
            keys.stands()

            keys.go(page.get_by_role("navigation").get_by_role("link", name="Compare"))
            keys.press("Enter")
            keys.go(page.get_by_role("link", name=f"Add {run_id}"))
            keys.press("Enter")
            expect(main).to_be_focused()
            keys.go(page.locator("summary", has_text="Add runs"))
            keys.press("Enter")
            keys.go(page.get_by_role("link", name=f"Add {other.run_id}"))
            keys.press("Enter")
            expect(page.get_by_role("row", name=re.compile("plan.iterations"))).to_be_visible()
            keys.walk()
            keys.go(page.get_by_label("Metric"))
            keys.press("ArrowDown")
            expect(page).to_have_url(re.compile("metric="))

            keys.go(page.get_by_role("navigation").get_by_role("link", name="Tasks"))
            keys.press("Enter")
            keys.go(page.get_by_label("Find a task"))
            keys.type("bird attack")
            keys.go(page.get_by_role("button", name=re.compile("^miniarcade")))
            keys.press("Space")
            expect(page.get_by_role("button", name=re.compile("^miniarcade"))).to_be_focused()
            keys.walk()
            keys.go(page.get_by_role("link", name=f"Play {TASK}"))
            keys.press("Enter")

            keys.go(page.get_by_label("Model"))
            keys.type("run-tiny")
            keys.go(page.get_by_role("button", name="Start", exact=True))
            keys.press("Enter")
            expect(page.get_by_alt_text(f"What {TASK} looks like now")).to_have_js_property("naturalWidth", 224)
            keys.walk()
            expect(page.get_by_role("button", name="Planner")).to_have_attribute("aria-pressed", "true")  # as before
            screen = page.get_by_role("group", name=re.compile("Picture; keys"))
            taken = page.get_by_role("group", name="Who acts").get_by_role("button", name="Keys")
            back = page.get_by_role("group", name="Who acts").get_by_role("button", name="Policy")
            for place, key in ((screen, "ArrowLeft"), (page.get_by_role("button", name="Hold left"), "Space")):
                keys.go(place)
                page.keyboard.down(key)
                expect(taken).to_have_attribute("aria-pressed", "true")
                page.keyboard.up(key)
                keys.go(back)
                keys.press("Enter")
                expect(back).to_have_attribute("aria-pressed", "true")
                expect(back).to_be_focused()
            keys.go(page.get_by_role("button", name="End"))
            keys.press("Enter")
            expect(page.get_by_text("It has ended.")).to_be_focused()
            context.close()
    finally:
        arcade.server.stop(0)
        arcade.close()
    assert visitor.wrong == []
