"""Which runs belong together: those with the same settings but for their seed."""

from __future__ import annotations

import hashlib
import json

from newt.runs.expansion import TASK
from newt.runs.spec import RunSpec


def group_key(spec: RunSpec) -> str:
    """A digest of all settings and labels but the seed, the name, and the label of an experiment's task."""
    labels = {name: value for name, value in spec.labels.items() if name != TASK}
    settings = spec.model_dump(mode="json", exclude={"seed", "name", "labels"})
    text = json.dumps([labels, settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
