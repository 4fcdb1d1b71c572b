"""Where both deployments look for the weights of encoders: on the learner's volume, and nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from manifests import base, of_kind, workloads

ROOT = Path(__file__).resolve().parents[3]
SHOW = "from huggingface_hub import constants as c; print(c.HF_HUB_CACHE, c.HF_HUB_OFFLINE)"


Places = tuple[dict[str, str], list[str]]
"""Environment of the learner, and where it mounts volumes."""


def compose() -> Places:
    learner = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["learner"]
    return learner["environment"], [volume.split(":")[1] for volume in learner["volumes"]]


def kubernetes() -> Places:
    learner = workloads(base())["learner"]["spec"]
    claims = {claim["metadata"]["name"] for claim in learner["volumeClaimTemplates"]}
    mounts = learner["template"]["spec"]["containers"][0]["volumeMounts"]
    variables = of_kind(base(), "ConfigMap")["learner"]["data"]
    return variables, [mount["mountPath"] for mount in mounts if mount["name"] in claims]


@pytest.mark.parametrize(("deployment", "guide"), [(compose, "compose.md"), (kubernetes, "deployment.md")])
def test_weights_lie_on_the_learners_volume(deployment: Callable[[], Places], guide: str) -> None:
    variables, volumes = deployment()
    own = {name: value for name, value in variables.items() if name.startswith("HF_")}
    shown = subprocess.run(
        [sys.executable, "-c", SHOW], env={**os.environ, **own}, capture_output=True, text=True, timeout=60, check=True
    )
    (volume,) = volumes
    assert shown.stdout.split() == [f"{volume}/models/hub", "True"]
    # What the guide has one fetch with HF_HOME=models lands there when the folder is copied into the volume.
    text = (ROOT / "docs" / guide).read_text()
    assert "HF_HOME=models hf download" in text
    assert f" cp models learner{'-0' if deployment is kubernetes else ''}:{volume}\n" in text
    assert variables["NEWT_LEARNER_IMAGE_ENCODER"].strip("${}").endswith("facebook/dinov2-base")
