"""The page in a real browser, on the API and real records; what runs' processes would write, the tests do.

Each test ends with: no word on the console, no request to another host (conftest.py).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from api_server import Api, build, serving
from axe_playwright_python.sync_playwright import Axe
from earlier_version import restore
from playwright.sync_api import Browser, FloatRect, Locator, expect
from tiny_agents import write_agent
from told_runs import attempt_of, start, store, tell
from visitor import Visitor

from newt.local import redis_server
from newt.local.redis_server import RedisServer
from newt.runs.base import now
from newt.runs.evaluations import CheckpointEvaluationRequest, EvaluationJob
from newt.runs.record import EpisodeStats, Evaluation, RunState
from newt.tasks.registry import get_task
from newt.videos import Frame, write_mp4
from services.learner.people import People
from services.learner.records.writer import RunWriter
from services.sim.service import SimService
from services.sim.settings import SimSettings

TOKEN = "8dc8f0be49959174badb3a91a7d97e55"
HOSTILE_NAME = "<img src=x onerror=alert(0)>"
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"


def test_a_run_is_started_watched_and_cancelled(visitor: Visitor, api: Api) -> None:
    page = visitor.open("new")
    page.get_by_role("button", name=re.compile("^mujoco")).click()
    page.get_by_label("name", exact=True).fill("first")
    page.get_by_label("total env steps").fill("-5")
    expect(page.get_by_label("Request as JSON")).to_contain_text('"total_env_steps": -5')
    page.get_by_role("button", name="Start the run").click()
    field = page.locator(".field", has=page.get_by_label("total env steps"))
    expect(field.get_by_role("alert")).to_contain_text("greater than or equal to 0")
    visitor.wrong.clear()  # the browser itself notes the 422
    page.get_by_label("total env steps").fill("5000")
    page.get_by_role("button", name="Start the run").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("first-")
    run_id = page.get_by_role("heading", level=1).inner_text()
    assert api.http.get(f"/runs/{run_id}").json()["spec"]["schedule"]["total_env_steps"] == 5000

    expect(page.get_by_role("region", name="Events")).to_contain_text("queued")  # the stream is there
    writer = attempt_of(api, run_id)
    for step in range(3):
        tell(writer, f"collecting {step}", 1000 * (step + 1))
        expect(page.get_by_text(f"collecting {step}")).to_be_visible()
    expect(page.get_by_role("region", name="Score", exact=True)).to_contain_text("3 of 3 points")
    expect(page.get_by_role("region", name="Critics")).to_contain_text("3 of 3 points")
    expect(page.get_by_role("region", name="Success", exact=True)).to_contain_text("1")
    expect(page.locator(".tile", has_text="Trains on")).to_contain_text("cpu float32 · not compiled")
    expect(page.get_by_text("1 GPU of this machine is not used")).to_be_visible()
    page.get_by_role("button", name="Episodes").click()
    curve = page.get_by_role("region", name="Return", exact=True)
    curve.locator(".u-over").hover()
    expect(curve.locator(".legend")).to_contain_text(re.compile("at (12|24|36)$"))

    # A tab that nobody sees lets go of its connection, and goes on where it was.
    streams = [url for url in visitor.asked if url.endswith("/events")]
    look = "hidden => { Object.defineProperty(document, 'hidden', { get: () => hidden, configurable: true }); "
    look += "document.dispatchEvent(new Event('visibilitychange')); }"
    page.evaluate(look, True)
    tell(writer, "collecting unseen", 4000)
    page.evaluate(look, False)
    expect(page.get_by_text("collecting unseen")).to_be_visible()
    assert [url for url in visitor.asked if url.endswith("/events")] == streams * 2

    page.get_by_role("button", name="Write tags and notes").click()
    page.get_by_label("Tags, with").fill("a," + "b" * 60)
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert").get_by_text("tags.1")).to_be_visible()
    visitor.wrong.clear()
    page.get_by_label("Tags, with").fill("keep this, second")
    page.get_by_label("Notes (Markdown)").fill("It learns **fast**.\n\n- and well")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("region", name="Notes").locator("strong")).to_have_text("fast")
    page.get_by_role("link", name="keep this").click()
    expect(page.get_by_label("Search runs")).to_have_value("keep this")
    expect(page.get_by_role("row", name=re.compile("It learns"))).to_contain_text(run_id)

    page.goto(f"{visitor.address}/#/")
    row = page.get_by_role("row", name=re.compile(run_id))
    expect(row).to_contain_text("0.500")
    # By keys alone; the question's first button is the harmless one.
    row.get_by_role("button", name="Cancel").press("Enter")
    expect(page.get_by_role("button", name="Keep it")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(row).to_contain_text("cancelled")
    row.get_by_role("button", name="Delete").click()
    page.keyboard.press("Escape")
    assert api.http.get(f"/runs/{run_id}").json()["state"] == "cancelled"
    page.get_by_label("Search runs").fill("no such thing")
    expect(page.get_by_text("No run is like that.")).to_be_visible()
    page.reload()
    expect(page.get_by_text("No run is like that.")).to_be_visible()  # the address has the words

    # It goes on from an older checkpoint: what was done since is grey, and the axis goes back.
    store(api, writer, [("trainer", 100 * n, 10 * n, {"value_loss": 1.0 + n}) for n in range(1, 9)])
    visitor.open("")
    row.get_by_role("button", name="Resume").click()
    expect(row).to_contain_text("queued")
    row.get_by_role("link", name=run_id).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(run_id)
    writer = attempt_of(api, run_id)
    store(api, writer, [("trainer", 800, 10 * n, {"value_loss": 3.0 + n}) for n in range(4, 7)])
    page.reload()
    expect(page.get_by_role("region", name="Critics")).to_contain_text("grey: superseded when the run resumed")
    expect(page.get_by_role("img", name=re.compile("attempt 1 cancelled; attempt 2 running"))).to_be_visible()


def test_words_of_others_stay_words(visitor: Visitor, api: Api) -> None:
    writer = start(api)
    writer.event("warning", HOSTILE, {})
    tell(writer, HOSTILE, 10)
    store(api, writer, [("trainer", 10 * k, k, {HOSTILE_NAME: 1.0}) for k in range(5)])
    notes = f"# {HOSTILE}\n\n[{HOSTILE_NAME}](javascript:alert(3)) **{HOSTILE_NAME}**\n\n- ![x](http://elsewhere.example/x.png)"
    api.http.patch(f"/runs/{writer.run_id}", json={"tags": [HOSTILE_NAME], "notes": notes}).raise_for_status()
    for place in ("", f"run/{writer.run_id}", f"compare?group={writer.run_id}"):
        page = visitor.open(place)
        expect(page.get_by_text("<img src=x").first).to_be_attached()
        assert page.locator("img:not([src*='icon.svg']), main script, [href^='javascript']").count() == 0
    writer.set_videos({"mujoco-reacher": "reacher.mp4"})
    writer.fail(HOSTILE)
    folder = api.learner.settings.folder
    log = folder.run_log(writer.run_id, "trainer")
    log.parent.mkdir(parents=True)
    log.write_text(json.dumps({"event": HOSTILE, "level": "warning", "x": HOSTILE}) + f"\n{HOSTILE}\n")
    frames = [Frame(np.full((224, 224, 3), 9 * k, np.uint8), k, 0.0, float("nan")) for k in range(9)]
    stats = EpisodeStats(score=0.3, corrected_score=0.3, return_=1, success=None, length=9, episodes=2)
    early = EvaluationJob(
        id="early",
        state="succeeded",
        run_id=writer.run_id,
        request=CheckpointEvaluationRequest(checkpoint=f"{writer.run_id}/5", tasks=["mujoco-reacher"], videos=True),
        checkpoint_sha256="",
        created_at=now(),
        result=Evaluation(kind="requested", mode="planner", env_steps=5_000, tasks={"mujoco-reacher": stats}),
        videos={"mujoco-reacher": "reacher.mp4"},
    )
    api.learner.records.evaluations.put(early)
    late = Evaluation(
        kind="periodic", mode="planner", env_steps=9_000, tasks={"mujoco-reacher": stats}, videos=early.videos
    )
    writer.evaluation(late)
    for videos in (folder.run(writer.run_id), folder.evaluation("early")):
        write_mp4(videos / "videos" / "reacher.mp4", "mujoco-reacher", frames, 9, steps_per_s=50.0)
    page = visitor.open(f"run/{writer.run_id}")
    expect(page.get_by_role("alert")).to_have_text(HOSTILE)
    page.locator("summary", has_text="Logs").click()
    expect(page.get_by_role("region", name="Log", exact=True)).to_contain_text(f"{HOSTILE} x={HOSTILE}")
    video = page.get_by_label("mujoco-reacher", exact=True).and_(page.locator("video"))
    video.scroll_into_view_if_needed()
    expect(video).to_have_js_property("videoWidth", 224)
    cards = page.get_by_role("region", name="Videos")
    expect(cards).to_contain_text("final evaluation")
    cards.get_by_label("Checkpoint").fill("1")
    expect(cards).to_contain_text("periodic evaluation · 9,000 env steps")
    cards.get_by_label("Checkpoint").fill("0")  # the slider
    expect(cards).to_contain_text("5, planner · 5,000 env steps")
    expect(cards).to_contain_text("0.300")
    expect(video).to_have_js_property("videoWidth", 224)
    expect(video).to_have_attribute("src", "evaluations/early/videos/reacher.mp4")
    visitor.open(f"run/{HOSTILE.replace('/', '%2F')}")
    expect(page.get_by_role("alert")).to_contain_text("onerror=alert(1)")
    page.wait_for_load_state("networkidle")  # the second 404 is late
    assert [told for told in visitor.wrong if "404" not in told] == []
    visitor.wrong.clear()


@pytest.fixture(scope="module")
def large(api: Api) -> RunWriter:
    """200 tasks, 10,000 rows, and a trainer that went back once."""
    writer = start(api, tasks=["mmbench"], name="all tasks", schedule={"total_env_steps": 1_000_000})
    tasks = writer.get().tasks
    updates = [*range(6_000), *range(5_000, 8_000)]
    rows = [("trainer", 10 * n, done, {"total_loss": 1 / (1 + n)}) for n, done in enumerate(updates)]
    rows += [("collector", 10 * n, n, {f"score/{tasks[n % 200]}": n / 1000}) for n in range(1_000)]
    store(api, writer, rows)
    api.learner.records.runs.count_restart(writer.run_id, "trainer was killed")
    writer = attempt_of(api, writer.run_id)
    notes = {"tags": ["large"], "notes": "### All of them\n\n- one agent\n\n# Next\n\n```\nmore\n```"}
    api.http.patch(f"/runs/{writer.run_id}", json=notes).raise_for_status()
    writer.enter(RunState.TRAINING)
    tell(writer, "collecting", 90_000)
    return writer


def box_of(locator: Locator) -> FloatRect:
    """Where it is; a chart that is drawn again is nowhere for a moment."""
    for _ in range(50):
        if (box := locator.bounding_box()) is not None:
            return box
        locator.page.wait_for_timeout(100)
    raise AssertionError(f"{locator} is nowhere")


def test_200_tasks_and_10_000_points_are_thinned_and_drawn_where_seen(visitor: Visitor, large: RunWriter) -> None:
    page = visitor.open(f"run/{large.run_id}")
    loss = page.get_by_role("region", name="Model loss, all terms")
    expect(loss).to_contain_text(re.compile(r"80\d of 9,00\d points · grey: superseded"))
    lane = page.get_by_role("img", name=re.compile("Events. attempt 1 restarted; attempt 2 running; 1 restarts"))
    expect(lane.locator(".lanebar")).to_have_count(2)
    expect(lane.locator(".lanemark")).to_have_attribute("title", re.compile("restart.*: trainer was killed"))
    cards = page.locator(".taskcard")
    expect(cards).to_have_count(200)
    assert cards.locator("svg").count() < 100
    cards.last.scroll_into_view_if_needed()
    expect(cards.last).to_contain_text("5 of 5 points")
    page.get_by_label("Bottom fifth only").check()
    expect(cards).to_have_count(40)
    page.get_by_role("button", name="Updates").click()
    assert "x=updates" in page.url
    expect(loss.locator("canvas")).to_be_attached()
    loss.scroll_into_view_if_needed()
    expect(loss.locator(".u-over")).to_be_visible()
    box = box_of(loss.locator(".u-over"))
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 40, steps=4)
    page.mouse.up()
    expect(page).to_have_url(re.compile(r"zoom=\d+%2C\d+"))
    low, high = (int(end) for end in re.findall(r"zoom=(\d+)%2C(\d+)", page.url)[0])
    assert 1_500 < low < 2_500 < 3_500 < high < 4_500  # of 8,000
    page.reload()
    loss.scroll_into_view_if_needed()
    expect(loss.locator("canvas")).to_be_attached()
    assert f"zoom={low}%2C{high}" in page.url
    page.get_by_role("button", name="Env steps").click()
    expect(page).not_to_have_url(re.compile("zoom="))  # its numbers were of the other axis
    page = visitor.open(f"compare?group={large.run_id}&metric=total_loss&x=updates&metric-zoom=2000,4000")
    loss = page.get_by_role("region", name="Model loss, all terms")
    loss.locator(".u-over").hover()
    expect(loss.locator(".legend")).to_contain_text(re.compile(r"at (2\.\d+|3|3\.\d+)k"))
    page.get_by_role("button", name="Wall time").click()
    expect(page).not_to_have_url(re.compile("zoom="))


@pytest.mark.parametrize(("scheme", "width"), [("light", 360), ("dark", 3840)])
def test_it_fits_into_any_window_and_can_be_read_by_all(
    visitor: Visitor, large: RunWriter, scheme: Any, width: int
) -> None:
    page = visitor.page
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    for place in ("", "new", f"run/{large.run_id}", f"compare?group={large.run_id}", "tasks", "play"):
        visitor.open(place)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width, place
        found = Axe().run(page)  # names, contrast, roles
        assert found.violations_count == 0, f"{place}: {found.generate_report()}"
    red, green, blue = (
        int(part) for part in re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))[:3]
    )
    assert (red + green + blue < 150) == (scheme == "dark")


def test_seeds_are_compared_as_groups(visitor: Visitor, api: Api, tmp_path: Path) -> None:
    groups = []
    for iterations in (2, 4):
        members = [start(api, seed=seed, plan={"iterations": iterations}, name="compared") for seed in (1, 2, 3)]
        groups.append([writer.run_id for writer in members])
        for writer in members:
            for kind, env_steps, score in (("random", 0, 0.1), ("final", 40_000, 0.2 * iterations)):
                stats = EpisodeStats(score=score, corrected_score=score, return_=1, success=None, length=9, episodes=2)
                tasks = {"mujoco-reacher": stats}
                writer.evaluation(Evaluation(kind=kind, mode="planner", env_steps=env_steps, tasks=tasks))  # type: ignore[arg-type]
    page = visitor.open("")
    page.get_by_label("Search runs").fill("compared")
    for run_id in [*groups[0], *groups[1]]:
        page.get_by_label(f"Select {run_id}").check()
    page.get_by_role("link", name="Compare 6").click()
    different = page.locator("section", has=page.get_by_role("heading", name="What is different"))
    expect(different).to_contain_text("plan.iterations")
    expect(page.get_by_role("row", name=re.compile("3 of 3")).first).to_contain_text("0.800 to 0.800")
    page.get_by_label("Statistic").select_option("mean")
    assert "statistic=mean" in page.url
    page.reload()
    expect(page.get_by_label("Statistic")).to_have_value("mean")

    notes = {"notes": f"{HOSTILE} and **bold**"}
    api.http.patch(f"/runs/{groups[0][0]}", json=notes).raise_for_status()
    page.reload()
    page.locator("summary", has_text="Report").click()
    page.get_by_label("Title").fill(HOSTILE)
    page.get_by_label("Text (Markdown)").fill(f"# Found\n\n{HOSTILE} [bad](javascript:alert(1))")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as one HTML file").click()
    report = visitor.page.context.new_page()
    told: list[str] = []
    report.on("request", lambda request: told.append(request.url))
    report.on("console", lambda message: told.append(message.text))
    download.value.save_as(tmp_path / "report.html")
    report.goto((tmp_path / "report.html").as_uri())
    expect(report.get_by_role("heading", level=1)).to_have_text(HOSTILE)
    assert report.locator("script, [onerror], [href^='javascript']").count() == 0
    expect(report.get_by_role("row", name=re.compile("3 of 3")).first).to_contain_text("0.800 to 0.800")
    expect(report.locator("strong", has_text="bold")).to_be_visible()
    assert report.locator("img").evaluate("image => image.naturalWidth") > 400  # there is no training metric to draw
    assert [url for url in told if not url.startswith(("file:", "data:"))] == []
    report.close()

    page.get_by_role("button", name=re.compile("Leave out")).first.click()
    expect(page.get_by_text("Add another run or group.")).to_be_visible()

    page = visitor.open("tasks")
    expect(page.get_by_role("article")).to_have_count(228)
    page.get_by_role("button", name="mujoco 6").click()
    page.get_by_label("Find a task").fill("planar arm red target")
    card = page.get_by_role("article", name="mujoco-reacher")
    expect(page.get_by_role("article")).to_have_count(1)
    expect(card).to_contain_text("Best 0.800 by compared-")
    assert card.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 160
    page.get_by_role("link", name="Train on mujoco-reacher").click()
    expect(page.get_by_role("button", name="Leave out mujoco-reacher")).to_be_visible()


def test_what_an_earlier_version_stored_is_shown_and_its_videos_play(browser: Browser, tmp_path: Path) -> None:
    redis = redis_server.start(tmp_path / "redis")
    try:
        restore(redis.url, tmp_path)
        learner = build(redis.url, tmp_path)
        (run_id,) = (run for run in learner.records.runs.states() if run.startswith("finished-"))
        RunWriter(learner.records, run_id, 1).set_videos({"mujoco-reacher": "reacher.mp4"})
        frames = [Frame(np.full((224, 224, 3), 5 * k, np.uint8), k, 0.0, float("nan")) for k in range(50)]
        # It drew 25 steps per second, whatever the task.
        folder = learner.settings.folder.run(run_id)
        write_mp4(folder / "videos" / "reacher.mp4", "mujoco-reacher", frames, 50, steps_per_s=25.0)
        with serving(learner) as api:
            visitor = Visitor(browser.new_page(), f"http://127.0.0.1:{api.port}")
            page = visitor.open("")
            expect(page.get_by_role("row", name=re.compile(run_id))).to_contain_text("succeeded")
            page = visitor.open(f"run/{run_id}")
            score = page.get_by_role("region", name="Score", exact=True)
            expect(score.locator("footer")).to_contain_text(re.compile(r"(\d+) of \1 points"))
            video = page.locator("video")
            video.scroll_into_view_if_needed()
            expect(video).to_have_js_property("duration", 3)  # of 50 steps, and a second's hold
            video.evaluate("video => video.play()")
            expect(video).not_to_have_js_property("currentTime", 0)
            page.get_by_role("button", name="Episodes").click()
            expect(score).to_contain_text("No points yet")  # they were not counted
            page = visitor.open(f"compare?group={run_id}")
            expect(page.get_by_role("row", name=re.compile("1 of 1"))).to_be_visible()
            page = visitor.open("tasks?q=mujoco-reacher")
            expect(page.get_by_role("article", name="mujoco-reacher")).to_contain_text(f"by {run_id}")
            page.close()
        assert visitor.wrong == []
    finally:
        redis.stop()


def test_the_token_is_asked_for_once_and_is_in_no_address(
    browser: Browser, shared_redis: RedisServer, tmp_path: Path
) -> None:
    with serving(build(shared_redis.url, tmp_path), TOKEN) as guarded:
        guarded.http.headers["authorization"] = f"Bearer {TOKEN}"
        writer = start(guarded)
        context = browser.new_context()
        visitor = Visitor(context.new_page(), f"http://127.0.0.1:{guarded.port}")
        page = visitor.open(f"run/{writer.run_id}")
        page.get_by_label(re.compile("Token")).fill("wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_text("the token is wrong").first).to_be_visible()
        page.get_by_label(re.compile("Token")).fill(TOKEN)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text(writer.run_id)
        tell(writer, "told by a stream", 10)
        expect(page.get_by_text("told by a stream")).to_be_visible()
        page.reload()
        expect(page.get_by_role("heading", level=1)).to_have_text(writer.run_id)
        assert page.get_by_role("dialog").count() == 0
        assert page.evaluate("localStorage.length + document.cookie.length") == 0
        with page.expect_download() as download:
            page.get_by_role("button", name="Metrics as CSV").click()
        assert download.value.suggested_filename == f"{writer.run_id}-metrics.csv"
        page = visitor.open("tasks?q=mujoco-reacher")
        picture = page.get_by_role("article", name="mujoco-reacher").locator("img")
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 160
        context.close()
    assert not [url for url in visitor.asked if TOKEN in url]
    assert [told for told in visitor.wrong if "401" not in told] == []


def test_where_tokens_have_names_the_page_says_whose_it_has_and_whose_runs(
    browser: Browser, shared_redis: RedisServer, tmp_path: Path
) -> None:
    file = tmp_path / "people.toml"
    file.write_text(f'[ada]\nrole = "user"\ntoken = "{TOKEN}"\nquotas = {{runs = 4}}\n')
    learner = build(shared_redis.url, tmp_path)
    with serving(learner, People(file, learner.records.broken)) as guarded:
        guarded.http.headers["authorization"] = f"Bearer {TOKEN}"
        writer = start(guarded)
        page = Visitor(browser.new_page(), f"http://127.0.0.1:{guarded.port}").open("?q=ada")
        page.get_by_role("textbox", name="Token").fill(TOKEN)
        page.keyboard.press("Enter")
        expect(page.get_by_text("ada · user")).to_have_attribute("title", "runs: 4")
        expect(page.get_by_role("row", name=writer.run_id)).to_contain_text("by ada")
        page.get_by_role("button", name="Leave").click()
        expect(page.get_by_role("dialog")).to_be_visible()
        page.close()


def test_an_agent_is_watched_and_a_game_is_played_by_keys_and_kept(
    browser: Browser, shared_redis: RedisServer, tmp_path: Path
) -> None:
    arcade = SimService(SimSettings(port=0, domains=("miniarcade",), workers=1, log_level="ERROR"))
    arcade.server.start()
    arcade.server.set_ready(True)
    task, settings = "pygame-bird-attack", {"sims": {"miniarcade": arcade.server.address}, "torch_threads": 1}
    checkpoints = tmp_path / "runs" / "run-tiny" / "checkpoints"
    checkpoints.mkdir(parents=True)
    write_agent(checkpoints / "100.safetensors", [task])
    try:
        with serving(build(shared_redis.url, tmp_path, device="cpu", **settings), TOKEN) as guarded:
            context = browser.new_context(viewport={"width": 360, "height": 900})
            visitor = Visitor(context.new_page(), f"http://127.0.0.1:{guarded.port}")
            page = visitor.open(f"play?checkpoint=run-tiny&task={task}")
            page.get_by_label(re.compile("Token")).fill(TOKEN)
            page.keyboard.press("Enter")
            page.get_by_label("Seed").fill("-1")
            page.get_by_role("button", name="Start").click()
            expect(page.get_by_role("alert")).to_have_text("Seed: expected a whole number.")
            page.get_by_label("Seed").fill("7")
            page.get_by_role("button", name="Start").click()
            expect(page.get_by_alt_text(f"What {task} looks like now")).to_have_js_property("naturalWidth", 224)
            spread = page.locator(".tile", has_text="Plan's spread").locator("dd")
            expect(spread).to_have_text(re.compile(r"^0\.\d+"))
            other = get_task("pygame-pong").instruction  # whose embedding comes with the package
            page.get_by_label("Instruction", exact=True).and_(page.locator("textarea")).fill(other)
            page.get_by_role("button", name="Tell it").click()
            expect(page.get_by_text("It has been told.")).to_be_visible()
            page.get_by_role("button", name="One plan").click()
            expect(page.get_by_role("region", name="Reward")).to_contain_text("imagined from step")
            expect(page.get_by_text("Paused.")).to_be_visible()
            found = Axe().run(page)
            assert found.violations_count == 0, found.generate_report()
            assert page.evaluate("document.documentElement.scrollWidth") <= 360

            page.get_by_role("button", name="Next seed").click()
            expect(page.get_by_label("Seed of the episode")).to_have_value("8")
            page.get_by_role("group", name=re.compile("Picture; keys")).focus()
            page.keyboard.down("ArrowLeft")
            expect(page.get_by_role("button", name="Keys")).to_have_attribute("aria-pressed", "true")
            expect(page.locator(".tile", has_text="Step").locator("dd")).to_have_text(re.compile("[1-9].* / "))
            with page.expect_download() as download:
                page.get_by_role("button", name="Keep as demonstration").click()
            page.get_by_role("button", name="Policy").first.click()  # hands back
            expect(page.get_by_role("button", name="Policy").first).to_have_attribute("aria-pressed", "true")
            with np.load(download.value.path()) as kept:
                assert [-1.0, -1.0] in kept["action"].tolist()
                assert (kept["task"].tolist(), kept["seed"].tolist()) == ([task], [8])
            page.get_by_role("button", name="End").click()
            expect(page.get_by_text("It has ended.")).to_be_visible()
            assert arcade.sessions.used_instances == 0
            context.close()
    finally:
        arcade.server.stop(0)
        arcade.close()
    assert not [url for url in visitor.asked if TOKEN in url]
    assert [told for told in visitor.wrong if "401" not in told] == []
