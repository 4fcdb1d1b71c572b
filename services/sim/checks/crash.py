"""Steps an episode again that ended in a crash: `python -m services.sim.checks.crash FILE [SOURCE]`.

The last line of its output is JSON: `task`, `seed`, `steps`, what was `recorded` and what happens `now` (nothing where
it does not fail any more), and the first step whose observation `differs`; or `error`.
"""

from __future__ import annotations

import argparse
import json
import os
import zipfile
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from newt.errors import InvalidInputError, NewtError
from services.sim import domains
from services.sim.checks.answering import answer
from services.sim.domains.own import SOURCES_VARIABLE
from services.sim.group import check_finite


def again(path: Path, source: str | None) -> dict[str, Any]:
    """Steps what a file holds; returns what came of it.

    Args:
        path: A file that a simulator has written.
        source: Where the task comes from now; by default where it came from then.

    Raises:
        InvalidInputError: The file is none of a crash; says why.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            facts: dict[str, Any] = json.loads(str(file["facts"]))
            actions, last = file["actions"], file["last_obs"]
        task, domain, seed, steps = facts["task"], facts["domain"], int(facts["seed"]), int(facts["steps"])
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        why = f"{type(error).__name__}: {error}"
        raise InvalidInputError("FILE", f"{path}: expected a crash-*.npz of a simulator, got {why}") from error
    if not facts.get("whole", False):
        raise InvalidInputError("FILE", f"{path}: its {steps} steps were too many to keep all actions")
    os.environ[SOURCES_VARIABLE] = json.dumps([source]) if source else facts["sources"]
    first = steps - len(last)  # the step after which the oldest observation was seen, the last having led to none
    now, differs = "", None
    try:
        env = domains.make(domain, task, False)
        obs = env.reset(seed)
        check_finite(obs)
        for step in range(steps + 1):
            if 0 <= step - first < len(last) and differs is None and not np.array_equal(obs, last[step - first]):
                differs = step
            if step == steps:
                break
            result = env.step(actions[step])
            obs = result.obs
            check_finite(obs, result.reward, result.score, env.corrected_score or 0.0)
    except NewtError:
        raise
    except Exception as error:
        now = f"{type(error).__name__}: {error}"
    return {"task": task, "seed": seed, "steps": steps, "recorded": facts["error"], "now": now, "differs": differs}


def main() -> NoReturn:
    """Steps what the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m services.sim.checks.crash")
    parser.add_argument("file", type=Path)
    parser.add_argument("source", nargs="?")
    options = parser.parse_args()
    answer(lambda: again(options.file, options.source))


if __name__ == "__main__":
    main()
