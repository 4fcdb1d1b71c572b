"""The Grafana dashboards as code (`make manifests`)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "grafana" / "dashboards"
DATASOURCE = {"type": "prometheus", "uid": "prometheus"}
RATE = "$__rate_interval"


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        title: What it shows.
        queries: Pairs of PromQL and legend.
        unit: Grafana's name of the unit.
        kind: Grafana's panel type.
        width: Width of 24 columns.
    """

    title: str
    queries: Sequence[tuple[str, str]]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 12


def _quantiles(metric: str, *shares: float) -> list[tuple[str, str]]:
    return [
        (f"histogram_quantile({share}, sum by (le) (rate({metric}_bucket[{RATE}])))", f"p{share * 100:g}")
        for share in shares
    ]


def _mean(metric: str) -> tuple[str, str]:
    return f"sum(rate({metric}_sum[{RATE}])) / sum(rate({metric}_count[{RATE}]))", "mean"


def _overall(metric: str) -> tuple[str, str]:
    return f"sum({metric}_sum) / sum({metric}_count)", "mean"


DASHBOARDS: dict[str, list[Panel]] = {
    "overview": [
        Panel("Runs", [("newt_learner_runs > 0", "{{state}}")], kind="stat", width=8),
        Panel("Env steps per second", [("newt_learner_env_steps_per_second", "env steps/s")], kind="stat", width=8),
        Panel("Mean score", [("avg(newt_learner_evaluation_score)", "score")], "percentunit", "stat", 8),
        Panel(
            "Speed",
            [("newt_learner_env_steps_per_second", "env steps"), ("newt_learner_updates_per_second", "updates")],
            "ops",
        ),
        Panel("Score by domain", [("newt:domain_score:mean", "{{domain}}")], "percentunit"),
        Panel("Env steps and updates", [("newt_learner_env_steps", "env steps"), ("newt_learner_updates", "updates")]),
        Panel("Services", [("up", "{{job}} {{instance}}")]),
        Panel(
            "Time until certificates expire; 0 without TLS",
            [("min by (job) (clamp_min(newt_tls_certificate_expiry_timestamp_seconds - time(), 0))", "{{job}}")],
            "s",
        ),
    ],
    "planner": [
        Panel(
            "Rows per second", [(f"sum by (instance) (rate(newt_planner_rows_total[{RATE}]))", "{{instance}}")], "ops"
        ),
        Panel("Rows of a device batch", [_mean("newt_planner_batch_rows")]),
        Panel("Time in the queue", _quantiles("newt_planner_queue_seconds", 0.5, 0.99), "s"),
        Panel("Time of a device batch", _quantiles("newt_planner_compute_seconds", 0.5, 0.99), "s"),
        Panel("Rows waiting", [("newt_planner_queued_rows", "{{instance}}")]),
        Panel("Weights version", [("newt_planner_weights_version", "{{instance}}")]),
        Panel("From new weights to their use", [_mean("newt_planner_publish_to_use_seconds")], "s"),
        Panel("Age of the weights", [("time() - (newt_planner_weights_created_seconds > 0)", "{{instance}}")], "s"),
        Panel("Models and hub", [("newt_planner_models", "models"), ("newt_planner_hub_connected", "hub connected")]),
        Panel(
            "Failures",
            [(f"sum by (reason) (rate(newt_planner_failures_total[{RATE}]))", "{{reason}}")],
            "ops",
        ),
    ],
    "replay": [
        Panel("Episodes held", [("newt_replay_episodes", "{{kind}}")]),
        Panel("Rows held", [("newt_replay_rows", "{{kind}}")]),
        Panel(
            "Transitions stored per second",
            [(f"sum by (kind) (rate(newt_replay_appended_transitions_total[{RATE}]))", "{{kind}}")],
            "ops",
        ),
        Panel(
            "Sequences sampled per second",
            [(f"sum by (origin) (rate(newt_replay_sampled_sequences_total[{RATE}]))", "{{origin}}")],
            "ops",
        ),
        Panel("Time of a batch", _quantiles("newt_replay_sample_seconds", 0.5, 0.99), "s"),
        Panel(
            "Held back",
            [(f"sum by (side) (rate(newt_replay_blocked_seconds_total[{RATE}]))", "{{side}}")],
            "percentunit",
        ),
        Panel(
            "Memory of Redis",
            [("newt_replay_redis_used_bytes", "used"), ("newt_replay_redis_limit_bytes", "limit")],
            "bytes",
        ),
        Panel("Bytes of episodes", [("newt_replay_bytes", "{{kind}}")], "bytes"),
        Panel(
            "Redis answers, and writes its file", [("newt_replay_redis_up", "up"), ("newt_replay_redis_aof_ok", "file")]
        ),
        Panel(
            "Redis errors",
            [(f"sum by (reason) (rate(newt_replay_redis_errors_total[{RATE}]))", "{{reason}}")],
            "ops",
        ),
    ],
    "learner": [
        Panel("Updates per second", [("newt_learner_updates_per_second", "updates")], "ops"),
        Panel("Updates", [("newt_learner_updates", "updates")]),
        Panel("Updates behind the steps taken", [("newt_learner_updates_behind", "updates")]),
        Panel("Age of the weights that act", [("newt_learner_weights_age_seconds", "age")], "s"),
        Panel("Updates since the weights that act", [("newt_learner_weights_age_updates", "updates")]),
        Panel("Time of a plan, as collectors see it", _quantiles("newt_learner_plan_seconds", 0.5, 0.99), "s"),
        Panel("Time of an env step, as collectors see it", _quantiles("newt_learner_env_step_seconds", 0.5, 0.99), "s"),
        Panel("From a run's start to its first session, mean", [_overall("newt_learner_first_session_seconds")], "s"),
        Panel("Age of the newest checkpoint", [("newt_learner_checkpoint_age_seconds", "age")], "s"),
        Panel(
            "Episodes lost",
            [(f"sum by (reason) (rate(newt_learner_episodes_lost_total[{RATE}]))", "{{reason}}")],
            "ops",
        ),
        Panel("Losses", [('newt_learner_loss{name=~".*loss.*"}', "{{name}}")]),
        Panel("Other training metrics", [('newt_learner_loss{name!~".*loss.*"}', "{{name}}")]),
        Panel("Runs by state", [("newt_learner_runs", "{{state}}")]),
        Panel("Data volume in use", [("newt_learner_data_used_ratio", "used")], "percentunit"),
        Panel("Runs that diverged", [("newt_learner_diverged_runs_total", "runs")]),
        Panel(
            "Restarts of crashed processes",
            [("newt_learner_process_restarts_total", "{{role}}")],
        ),
        Panel(
            "REST requests",
            [(f"sum by (status) (rate(newt_learner_http_request_seconds_count[{RATE}]))", "{{status}}")],
        ),
    ],
    "simulators": [
        Panel("Env steps per second", [("newt:env_steps:rate1m", "{{domain}}")], "ops"),
        Panel(
            "Time of a step",
            [
                (
                    f"histogram_quantile(0.5, sum by (le, job, instance) (rate(newt_sim_step_seconds_bucket[{RATE}])))",
                    "{{instance}}",
                )
            ],
            "s",
        ),
        Panel("Needed by runs and evaluations", [("newt_learner_sim_needed", "{{service}}")]),
        Panel("Sessions", [("newt_sim_sessions", "{{instance}}")]),
        Panel("Instances", [("newt_sim_instances", "{{instance}}")]),
        Panel(
            "Episodes lost to a crash",
            [
                (f"sum by (domain) (rate(newt_sim_env_errors_total[{RATE}]))", "{{domain}}"),
                (f"sum by (task) (rate(newt_sim_not_finite_episodes_total[{RATE}]))", "{{task}}: not finite"),
            ],
        ),
        Panel(
            "Workers replaced",
            [(f"sum by (reason) (rate(newt_sim_worker_restarts_total[{RATE}]))", "{{reason}}")],
        ),
        Panel("Expired leases", [("newt_sim_leases_expired_total", "{{instance}}")]),
    ],
    "tasks": [
        Panel(
            "Score by domain, latest evaluation",
            [("newt:domain_score:mean", "{{domain}}")],
            "percentunit",
            "bargauge",
            24,
        ),
        Panel(
            "Score by domain, training episodes",
            [("avg by (domain) (newt_learner_task_score)", "{{domain}}")],
            "percentunit",
        ),
        Panel("Score by domain, evaluations", [("newt:domain_score:mean", "{{domain}}")], "percentunit"),
        Panel(
            "Score by task, latest evaluation",
            [("newt_learner_evaluation_score", "{{task}}")],
            "percentunit",
            "bargauge",
            24,
        ),
        Panel("Score by task, training episodes", [("newt_learner_task_score", "{{task}}")], "percentunit", width=24),
    ],
}


def dashboard(name: str) -> dict[str, Any]:
    """One dashboard in Grafana's JSON model."""
    panels: list[dict[str, Any]] = []
    x = y = 0
    for number, panel in enumerate(DASHBOARDS[name], start=1):
        if x + panel.width > 24:
            x, y = 0, y + 8
        panels.append(
            {
                "id": number,
                "type": panel.kind,
                "title": panel.title,
                "datasource": DATASOURCE,
                "gridPos": {"x": x, "y": y, "w": panel.width, "h": 8},
                "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
                "targets": [
                    {"refId": chr(65 + i), "datasource": DATASOURCE, "expr": expr, "legendFormat": legend}
                    for i, (expr, legend) in enumerate(panel.queries)
                ],
            }
        )
        x += panel.width
    return {
        "uid": f"newt-{name}",
        "title": f"Newt: {name.capitalize()}",
        "tags": ["newt"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "5s",
        "time": {"from": "now-1h", "to": "now"},
        "links": [{"type": "dashboards", "title": "Newt", "tags": ["newt"], "asDropdown": False}],
        "panels": panels,
    }


def files() -> dict[Path, str]:
    """The files and their texts."""
    return {FOLDER / f"{name}.json": json.dumps(dashboard(name), indent=1) + "\n" for name in DASHBOARDS}
