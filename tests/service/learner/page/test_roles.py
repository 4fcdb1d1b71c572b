"""What the page offers to people whose tokens have names: nothing that their role would be refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_server import Api, build, serving
from playwright.sync_api import Browser, Locator, Page, expect
from visitor import Visitor

from newt.local.redis_server import RedisServer
from services.learner.people import People

TOKENS = {name: f"{name}-0123456789abcdef" for name in ("rita", "ada", "bob")}
ROLES = {"rita": "reader", "ada": "user", "bob": "user"}


@pytest.fixture
def named(shared_redis: RedisServer, tmp_path: Path) -> Iterator[Api]:
    file = tmp_path / "people.toml"
    file.write_text("".join(f'[{name}]\nrole = "{ROLES[name]}"\ntoken = "{TOKENS[name]}"\n' for name in TOKENS))
    learner = build(shared_redis.url, tmp_path)
    with serving(learner, People(file, learner.records.broken)) as served:
        yield served


def entered(browser: Browser, api: Api, name: str, place: str) -> tuple[Visitor, Page]:
    """Somebody who has entered their token."""
    visitor = Visitor(browser.new_page(), f"http://127.0.0.1:{api.port}")
    page = visitor.open(place)
    page.get_by_role("textbox", name="Token").fill(TOKENS[name])
    page.keyboard.press("Enter")
    expect(page.get_by_text(f"{name} · {ROLES[name]}")).to_be_visible()
    return visitor, page


def refused(button: Locator, why: str) -> None:
    """It is disabled, says why, can be reached by keys, and does nothing."""
    expect(button).to_be_disabled()
    expect(button).to_have_accessible_description(re.compile(why))
    button.focus()
    expect(button).to_be_focused()
    button.press("Enter")
    button.click(force=True)


def test_what_a_role_would_be_refused_cannot_be_pressed(browser: Browser, named: Api) -> None:
    headers = {"authorization": f"Bearer {TOKENS['ada']}"}
    run = named.http.post("/runs", json={"preset": "laptop", "tasks": ["mujoco-reacher"]}, headers=headers).json()
    sent: list[str] = []
    for name, why in (("rita", "rita is a reader"), ("bob", "belongs to ada; you are bob")):
        visitor, page = entered(browser, named, name, f"run/{run['id']}")
        page.on("request", lambda request: sent.append(request.method))
        refused(page.get_by_role("button", name="Cancel run"), why)
        refused(page.get_by_role("button", name="Write tags and notes"), why)
        expect(page.get_by_label("Notes (Markdown)")).to_have_count(0)
        page.get_by_role("link", name="New run like this").click()
        start = page.get_by_role("button", name="Start the run")
        if name == "bob":
            expect(start).to_be_enabled()  # what is made is one's own
        else:
            refused(start, why)
            page.get_by_label("name", exact=True).press("Enter")
            page.goto(f"{visitor.address}/#/play")
            refused(page.get_by_role("button", name="Start", exact=True), why)
            page.goto(f"{visitor.address}/#/?q={run['id']}")
            refused(page.get_by_role("button", name="Cancel run"), why)
        page.close()
    assert set(sent) == {"GET"}

    _, page = entered(browser, named, "ada", f"run/{run['id']}")
    page.get_by_role("button", name="Cancel run").click()
    page.get_by_role("button", name="Cancel the run").click()
    expect(page.get_by_role("button", name="Resume run")).to_be_enabled()
    page.close()
