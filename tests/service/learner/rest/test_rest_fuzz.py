"""Requests that the API's own description makes up: every reply is one that it has, and none is a surprise.

NEWT_FUZZ_EXAMPLES and NEWT_FUZZ_SEED ask for more of them, and for others (`make fuzz`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from urllib.parse import urlencode

import pytest
import requests
import schemathesis
from api_server import Api
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import FlakyStrategyDefinition
from hypothesis.stateful import run_state_machine_as_test
from schemathesis.checks import CheckContext
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from services.learner.processes import demo_sets, dependencies

EXAMPLES = int(os.environ.get("NEWT_FUZZ_EXAMPLES", "8"))
SEED = int(os.environ.get("NEWT_FUZZ_SEED", "1"))
SETTINGS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
# Without replay and planner some things cannot be done; a disk may be full.
EXPECTED = {503, 507}
STORIES = 16  # of a round
# Behind it the server closes without reading on, and what it still says may be lost.
LONGEST_REQUEST_LINE = 60_000
MODES = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]


@schemathesis.check
def no_surprise(ctx: CheckContext, response: schemathesis.Response, case: schemathesis.Case) -> None:
    assert response.status_code < 500 or response.status_code in EXPECTED, response.text
    assert len(response.content) < 500_000


RULES = [
    no_surprise,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]


@pytest.fixture(scope="module")
def schema(api: Api) -> Iterator[schemathesis.BaseSchema]:
    with pytest.MonkeyPatch.context() as patch:
        for module, name in (
            (demo_sets, "TIMEOUT_S"),
            (demo_sets, "DELETE_TIMEOUT_S"),
            (dependencies, "CHECK_TIMEOUT_S"),
        ):
            patch.setattr(module, name, 0.1)  # nobody is there
        loaded = schemathesis.openapi.from_url(f"http://127.0.0.1:{api.port}/openapi.json", timeout=60)
        loaded.config.update(base_url=f"http://127.0.0.1:{api.port}")
        yield loaded


def can_be_wrong(operation: schemathesis.APIOperation) -> bool:
    """Any name is a name, and bytes are bytes; a query and a JSON body have a schema."""
    anything = operation.path.endswith("/resume")
    return bool(operation.query) or (operation.method.upper() == "POST" and bool(operation.body) and not anything)


def request_line(case: schemathesis.Case) -> int:
    """About how long path and query are, as they are sent."""
    return len(urlencode(case.query or {}, doseq=True)) + len(case.formatted_path)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name.lower())
def test_any_request(schema: schemathesis.BaseSchema, mode: schemathesis.GenerationMode) -> None:
    asked = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        if mode is schemathesis.GenerationMode.NEGATIVE and not can_be_wrong(operation):
            continue

        @seed(SEED)
        @SETTINGS
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: schemathesis.Case) -> None:
            nonlocal asked
            asked += 1
            with suppress(requests.RequestException) if request_line(case) > LONGEST_REQUEST_LINE else nullcontext():
                case.call_and_validate(checks=RULES, timeout=30)

        ask()
    assert asked > 5 * EXAMPLES


def test_any_story(schema: schemathesis.BaseSchema) -> None:
    """What one reply names the next request uses: runs that there are, and what is below them.

    The learner remembers the stories before, so the same requests are answered otherwise later on. Hypothesis takes
    that for a fault of the story when it comes by again, which it does the sooner the more stories it has told: each
    round begins with nothing told, and ends where that happens all the same. Replies are looked at before that.
    """
    machine = schema.exclude(path_regex="/events$").as_state_machine()  # those would wait for the run to end
    replies = 0

    class Story(machine):  # type: ignore[misc, valid-type]
        def validate_response(self, response: schemathesis.Response, case: schemathesis.Case, **kwargs: object) -> None:
            nonlocal replies
            case.validate_response(response, checks=RULES)
            replies += 1

    rounds = -(-2 * EXAMPLES // STORIES)
    for number in range(rounds):
        with suppress(FlakyStrategyDefinition):
            run_state_machine_as_test(
                seed(SEED + number)(Story), settings=settings(SETTINGS, max_examples=STORIES, stateful_step_count=8)
            )
    assert replies > 2 * rounds * STORIES
