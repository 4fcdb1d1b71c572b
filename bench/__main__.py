"""Measures, prints a table, updates bench/results/latest.json and the table in docs/performance.md."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from rich.console import Console

from bench import floors, machine, registry, report
from bench.figures import Figure
from bench.measure import Effort
from newt import logs
from newt.wire.polling import GRPC_ENVIRONMENT


def main() -> int:
    """Returns the exit code: 2 for arguments that make no sense, 1 where a ratio that is checked is below its floor."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", default="", help=f"subjects, separated by commas: {', '.join(registry.SUBJECTS)}")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions: a look, not figures to keep")
    parser.add_argument("--check", action="store_true", help="only see, quickly, that no ratio is below its floor")
    parser.add_argument("--output", type=Path, default=report.RESULTS, help="results file (default: %(default)s)")
    arguments = parser.parse_args()
    try:
        subjects = registry.chosen([name.strip() for name in arguments.only.split(",") if name.strip()])
    except ValueError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    logs.configure("bench", "ERROR")
    # As in the services' processes; gRPC is loaded with the first subject.
    os.environ.update(GRPC_ENVIRONMENT)
    # As Ctrl-C does: services in processes of their own end with the blocks that started them.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    effort = Effort("quick" if arguments.quick else "full")
    console = Console(width=None if sys.stdout.isatty() else 180)
    if arguments.check:
        return 0 if floors.check(console, subjects if arguments.only else ()) else 1
    every: list[Figure] = []
    for subject in subjects:
        before = machine.load()
        console.print(f"{subject}: {registry.SUBJECTS[subject][1]} (load before: {before:.2f})", highlight=False)
        figures = list(registry.run(subject, effort))
        report.store(arguments.output, subject, figures, effort, before)
        report.show(figures, console)
        every += figures
    if len(subjects) > 1:
        report.show(every, console)
    if arguments.output == report.RESULTS:
        report.update_page(report.PAGE, report.read(report.RESULTS))
    console.print(f"Written to {arguments.output}", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
