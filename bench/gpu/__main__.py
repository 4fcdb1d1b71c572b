"""Runs all stages and keeps what each has found; or writes the page from an earlier session's file.

python -m bench.gpu --output gpu.json            # on the machine with the GPU
python -m bench.gpu --report gpu.json            # anywhere: docs/gpu.md
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.gpu import page, session
from bench.gpu.document import Notebook, read


def main() -> int:
    """Returns 0 if every stage ended by itself and every check held, else 1."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda", help="torch device (default: %(default)s)")
    parser.add_argument("--tiny", action="store_true", help="smallest sizes, to see that everything runs")
    parser.add_argument("--output", type=Path, default=Path("gpu.json"), help="results (default: %(default)s)")
    parser.add_argument("--only", default="", help=f"stages, separated by commas: {', '.join(session.STAGES)}")
    parser.add_argument("--report", type=Path, help="write docs/gpu.md from this file of results, and run nothing")
    parser.add_argument("--stage", help=argparse.SUPPRESS)  # what the session starts
    arguments = parser.parse_args()
    if arguments.report:
        page.write(read(arguments.report))
        return 0
    names = [name for name in arguments.only.split(",") if name] or list(session.STAGES)
    unknown = sorted(set(names) - set(session.STAGES))
    if unknown:
        parser.error(f"unknown stage {', '.join(unknown)}; known are {', '.join(session.STAGES)}")
    if arguments.stage:
        session.run_stage(arguments.stage, arguments.device, arguments.tiny, Notebook(arguments.output))
        return 0
    document = session.run(arguments.output, arguments.device, tiny=arguments.tiny, names=names)
    print(page.tables(document))
    ended = all(stage["rc"] == 0 for stage in document["stages"])
    return 0 if ended and all(check["ok"] for check in document["correctness"]) else 1


if __name__ == "__main__":
    sys.exit(main())
