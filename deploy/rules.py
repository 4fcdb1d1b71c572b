"""Writes the alert rules for the Prometheus operator (`python -m deploy.rules`); --check fails if they are stale."""

from __future__ import annotations

import argparse
import sys
import textwrap
from pathlib import Path

DEPLOY = Path(__file__).resolve().parent
SOURCE = DEPLOY / "prometheus" / "rules.yml"
TARGET = DEPLOY / "overlays" / "servicemonitor" / "rules.yaml"
HEADER = """\
# Written by `python -m deploy.rules` from deploy/prometheus/rules.yml: change that file, not this one.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: newt
  namespace: newt
  labels: {app.kubernetes.io/part-of: newt}
spec:
"""


def manifest() -> str:
    """The whole file."""
    text = SOURCE.read_text()
    return HEADER + textwrap.indent(text[text.index("groups:") :], "  ")


def main() -> int:
    """Writes or checks the file; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deploy.rules", description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the committed file is stale")
    if parser.parse_args().check:
        if TARGET.read_text() != manifest():
            print(f"{TARGET} is stale: run python -m deploy.rules", file=sys.stderr)
            return 1
        return 0
    TARGET.write_text(manifest())
    return 0


if __name__ == "__main__":
    sys.exit(main())
