"""Finds out the facts of a source's tasks: `python -m services.sim.domains.own.probe SOURCE` prints them as JSON.

It imports the source and builds each environment once; whatever that does to the process happens to it alone.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict

from newt.errors import NewtError
from services.sim.domains.own.adapter import OwnEnv
from services.sim.domains.own.facts import facts
from services.sim.domains.own.sources import digest, load


def main() -> int:
    """Prints one line of JSON: `tasks`, or `error`."""
    source = sys.argv[1]
    # What other people's code prints must not get between.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    tasks = []
    try:
        for own in load(source):
            env = OwnEnv(own)
            tasks.append(asdict(facts(own, digest(source, env.env), env)))
            env.close()
        answer: dict[str, object] = {"tasks": tasks}
    except NewtError as error:
        answer = {"error": f"{source}: {error}".replace(f"{source}: {source}:", f"{source}:")}
    except Exception as error:
        answer = {"error": f"{source}: its environment cannot be made: {type(error).__name__}: {error}"}
    print(json.dumps(answer), file=out, flush=True)
    return 0


if __name__ == "__main__":
    sys.stdout.flush()
    code = main()
    sys.stderr.flush()
    os._exit(code)
