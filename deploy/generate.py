"""Writes the files of deploy/ that come from code (`make manifests`); --check fails if a committed one is stale."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from deploy import config, dashboards, rules, sims
from deploy.helm import chart


def bring(files: Mapping[Path, str], command: str) -> int:
    """Writes files, or with --check on the command line compares them.

    Args:
        files: Texts by path.
        command: What the user runs to write them.

    Returns:
        The process's exit status: 1 if a file is stale.
    """
    parser = argparse.ArgumentParser(description=f"{command}: writes {len(files)} files")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is stale")
    if not parser.parse_args().check:
        for path, text in files.items():
            path.write_text(text)
        return 0
    stale = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        print(f"{path} is stale: run `{command}`", file=sys.stderr)
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(
        bring(config.files() | sims.files() | rules.files() | dashboards.files() | chart.files(), "make manifests")
    )
