"""deploy/k8s/sims.yaml: one simulator per domain (`make manifests`)."""

from __future__ import annotations

from pathlib import Path

import newt
from newt.own.manifests import simulator
from newt.tasks.domains import DOMAINS

TARGET = Path(__file__).resolve().parent / "k8s" / "sims.yaml"

HEADER = """\
# One service per domain. Written by `make manifests`: change the template in newt/own/manifests.py, not this file.
# A session lives in one replica, so clients keep each session on the replica that opened it (newt/client/sim.py).
"""

MEMORY = {
    "maniskill": {"request": "2Gi", "limit": "12Gi"},  # torch and a physics scene in every worker
    "robodesk": {"request": "1Gi", "limit": "6Gi"},
    "metaworld": {"request": "1Gi", "limit": "6Gi"},
}


def files() -> dict[Path, str]:
    """The whole file."""
    parts = [
        simulator(
            domain.name,
            f"localhost/newt/{domain.service}:{newt.__version__}",
            domain.name,
            **MEMORY.get(domain.name, {}),
        )
        for domain in DOMAINS.values()
    ]
    return {TARGET: HEADER + "---\n".join(parts)}
