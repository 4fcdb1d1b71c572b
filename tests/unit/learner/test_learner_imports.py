"""What does without torch starts in half the time: the REST API, and collectors whose planner is elsewhere."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["services.learner.__main__", "services.learner.collecting.collector"])
def test_no_torch_is_imported(module: str) -> None:
    program = f"import sys, {module}\nprint(*{{'torch', 'av', 'redis'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.split()) == (0, ["redis"]), done.stderr
