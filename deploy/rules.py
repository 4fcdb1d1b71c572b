"""The alert rules for the Prometheus operator, from those of deploy/prometheus (`make manifests`)."""

from __future__ import annotations

import textwrap
from pathlib import Path

DEPLOY = Path(__file__).resolve().parent
SOURCE = DEPLOY / "prometheus" / "rules.yml"
TARGET = DEPLOY / "components" / "servicemonitor" / "rules.yaml"
HEADER = """\
# Written by `make manifests` from deploy/prometheus/rules.yml: change that file, not this one.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: newt
  namespace: newt
  labels: {app.kubernetes.io/part-of: newt, release: kube-prometheus-stack}
spec:
"""


def files() -> dict[Path, str]:
    """The file and its text."""
    text = SOURCE.read_text()
    return {TARGET: HEADER + textwrap.indent(text[text.index("groups:") :], "  ")}
