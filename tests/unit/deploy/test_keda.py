"""The component `keda`: fields by KEDA's documentation (its schema is not here), and what its queries answer."""

from __future__ import annotations

import math
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from foreign_fields import COUNT, TEXT, strict
from manifests import base, combined, of_kind, overlay
from prometheus_client import REGISTRY

import services.planner.metrics  # noqa: F401 - registers its metrics

# KEDA drops fields that it does not know without a word.
SCHEMA = strict(
    {
        "scaleTargetRef": strict({"name": TEXT}, {"apiVersion": TEXT, "kind": TEXT}),
        "triggers": {
            "type": "array",
            "minItems": 1,
            "items": strict(
                {
                    "type": {"const": "prometheus"},
                    "metadata": strict(  # every value is text
                        {
                            "serverAddress": {"type": "string", "pattern": "^https?://"},
                            "query": TEXT,
                            "threshold": TEXT,
                        },
                        {"activationThreshold": TEXT, "ignoreNullValues": {"enum": ["true", "false"]}},
                    ),
                },
                {"name": TEXT, "metricType": {"enum": ["AverageValue", "Value"]}},
            ),
        },
    },
    {
        "pollingInterval": COUNT,
        "cooldownPeriod": COUNT,
        "minReplicaCount": COUNT,
        "maxReplicaCount": COUNT,
        "advanced": strict({}, {"horizontalPodAutoscalerConfig": strict({}, {"behavior": {"type": "object"}})}),
    },
)


def scaler(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = (item for item in manifests if item["kind"] == "ScaledObject")
    spec: dict[str, Any] = found["spec"]
    return spec


def queries() -> dict[str, tuple[str, float]]:
    """Expression and threshold of each trigger."""
    triggers = scaler(overlay("keda"))["triggers"]
    return {item["name"]: (item["metadata"]["query"], float(item["metadata"]["threshold"])) for item in triggers}


def test_the_fields_are_those_of_the_documentation() -> None:
    for built in (overlay("keda"), combined("keda", "planner-replicas")):
        jsonschema.validate(scaler(built), SCHEMA)
    with pytest.raises(jsonschema.ValidationError, match="minReplicas"):
        jsonschema.validate({**scaler(overlay("keda")), "minReplicas": 1}, SCHEMA)


def test_it_replaces_the_autoscaler_within_its_bounds() -> None:
    before = of_kind(base(), "HorizontalPodAutoscaler")["planner"]["spec"]
    spec = scaler(overlay("keda"))
    assert "planner" not in of_kind(overlay("keda"), "HorizontalPodAutoscaler")
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (before["minReplicas"], before["maxReplicas"])
    assert spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == before["behavior"]
    more = scaler(combined("keda", "planner-replicas"))
    assert (more["minReplicaCount"], more["maxReplicaCount"]) == (3, 12)


def test_every_metric_of_the_queries_exists() -> None:
    used = set(re.findall(r"\bnewt_[a-z_]+", " ".join(query for query, _ in queries().values())))
    assert used == {"newt_planner_queue_seconds_bucket", "newt_planner_queued_rows"}
    assert used <= set(REGISTRY._names_to_collectors)


def waits(waited_s: float, per_step: int, pod: str) -> list[dict[str, str]]:
    """Series of a planner whose requests all wait so long."""
    bounds = [0.1, 0.25, 0.5, 1.0, 2.5, math.inf]
    name = "newt_planner_queue_seconds_bucket"
    return [
        {
            "series": f'{name}{{namespace="newt",pod="{pod}",le="{"+Inf" if bound == math.inf else bound}"}}',
            "values": f"0+{per_step if waited_s <= bound else 0}x60",
        }
        for bound in bounds
    ]


def rows(count: int, pod: str, namespace: str = "newt") -> dict[str, str]:
    return {
        "series": f'newt_planner_queued_rows{{namespace="{namespace}",pod="{pod}"}}',
        "values": f"{count}+0x60",
    }


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        # All wait for 0.5 to 1 s: the quantile lies near the bucket's end, and another planner is wanted.
        ([*waits(0.9, 100, "a"), rows(300, "a")], {"queue-seconds": 0.975, "queued-rows": 300}),
        (
            [*waits(0.2, 100, "a"), *waits(0.2, 100, "b"), rows(9, "a"), rows(5, "b")],
            {"queue-seconds": 0.2425, "queued-rows": 14},
        ),
        # Nobody asks: a quantile of nothing is not a number, and 0 is meant.
        ([*waits(0.2, 0, "a"), rows(0, "a")], {"queue-seconds": 0, "queued-rows": 0}),
        # No planner is scraped, but those of somebody else.
        ([rows(1000, "a", "other")], {"queue-seconds": None, "queued-rows": None}),
    ],
)
def test_the_queries_answer_with_one_number_or_none(
    series: list[dict[str, str]], expected: dict[str, float | None], tmp_path: Path
) -> None:
    cases = [
        {
            "expr": queries()[name][0],
            "eval_time": "5m",
            "exp_samples": [] if value is None else [{"labels": "{}", "value": value}],
        }
        for name, value in expected.items()
    ]
    test = {"rule_files": [], "tests": [{"interval": "15s", "input_series": series, "promql_expr_test": cases}]}
    (tmp_path / "test.yml").write_text(yaml.safe_dump(test))
    done = subprocess.run(
        ["promtool", "test", "rules", str(tmp_path / "test.yml")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
