"""For all tests: on a machine where time ends, none begins after it."""

from __future__ import annotations

import os
import time

import pytest


@pytest.hookimpl(tryfirst=True)  # before its fixtures are made
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips what would begin after NEWT_TEST_UNTIL (seconds since the epoch); the summary counts these and says why."""
    if (until := os.environ.get("NEWT_TEST_UNTIL")) and time.time() > float(until):
        pytest.skip("not begun: the time for this part of the tests is used up (NEWT_TEST_UNTIL)")
