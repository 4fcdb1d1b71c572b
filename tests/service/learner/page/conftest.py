from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from api_server import Api, build, serving
from playwright.sync_api import Browser, expect, sync_playwright
from visitor import TIMEOUT_MS, Visitor

from newt.local.redis_server import RedisServer

DOMAINS = ("dmcontrol", "dmcontrol-ext", "metaworld", "maniskill", "mujoco")
DOMAINS += ("box2d", "robodesk", "ogbench", "miniarcade", "atari")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium as the system has it: `scripts/system-packages.sh --dev` installs it."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert path is not None, "no Chromium here; scripts/system-packages.sh --dev installs it"
    expect.set_options(timeout=TIMEOUT_MS)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def api(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    sims = dict.fromkeys(DOMAINS, "127.0.0.1:9")
    with serving(build(shared_redis.url, tmp_path_factory.mktemp("page"), sims=sims)) as served:
        yield served


@pytest.fixture
def visitor(browser: Browser, api: Api) -> Iterator[Visitor]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    someone = Visitor(context.new_page(), f"http://127.0.0.1:{api.port}")
    yield someone
    context.close()
    assert someone.wrong == []
    assert [url for url in someone.asked if not url.startswith((someone.address, "data:", "about:"))] == []
