"""The further nodes of a run as an object of Kubernetes: a JobSet, which a queue of Kueue may hold back.

By the documentation of `jobset.x-k8s.io/v1alpha2` and of Kueue: the queue is a label, a JobSet that has to wait is
suspended, `status` counts the Jobs of which all pods are ready, and its end is a condition.
"""

from __future__ import annotations

import copy
import hashlib
from typing import Any

GROUP, VERSION, PLURAL = "jobset.x-k8s.io", "v1alpha2", "jobsets"
QUEUE = "kueue.x-k8s.io/queue-name"
MANAGER, OURS = "app.kubernetes.io/managed-by", "newt-learner"
RUN = "newt.dev/run"
JOB = "node"
ENDS = ("Completed", "Failed")

Object = dict[str, Any]


def name_of(run_id: str) -> str:
    """Name of a run's JobSet: a run's id may be too long for one, or have other letters.

    >>> name_of("laptop-1a2b3c4d")
    'run-d123e72c02'
    """
    return f"run-{hashlib.sha256(run_id.encode()).hexdigest()[:10]}"


def job_set(run_id: str, nodes: int, template: Object, queue: str) -> Object:
    """The object to be made.

    Args:
        run_id: Whose nodes.
        nodes: How many, without the learner's.
        template: Metadata and spec of their pods; the first container is told the run.
        queue: Name of the LocalQueue of Kueue; empty for none.
    """
    pods = copy.deepcopy(template)
    container = pods["spec"]["containers"][0]
    container["command"] = [*container["command"], "--run", run_id]
    labels = {"app.kubernetes.io/part-of": "newt", "app.kubernetes.io/component": "node", MANAGER: OURS}
    job = {
        "completionMode": "Indexed",  # the index of a pod is its number among the further nodes
        "completions": nodes,
        "parallelism": nodes,
        "backoffLimit": 10,
        "template": pods,
    }
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "JobSet",
        "metadata": {
            "name": name_of(run_id),
            "labels": labels | ({QUEUE: queue} if queue else {}),
            "annotations": {RUN: run_id},
        },
        "spec": {
            "failurePolicy": {"maxRestarts": 3},
            "replicatedJobs": [{"name": JOB, "replicas": 1, "template": {"spec": job}}],
        },
    }


def run_of(found: Object) -> str:
    """The run whose nodes a JobSet has; empty if it does not say."""
    return str(found["metadata"].get("annotations", {}).get(RUN, ""))


def goes(found: Object) -> bool:
    """Whether a JobSet is being removed."""
    return "deletionTimestamp" in found["metadata"]


def ended(found: Object) -> str | None:
    """How a JobSet has ended; None while it has not."""
    for condition in found.get("status", {}).get("conditions", []):
        if condition["type"] in ENDS and condition["status"] == "True":
            return f"{condition['type']}: {condition.get('message', '')}"
    return None


def waits_for(found: Object) -> str | None:
    """What the nodes of a JobSet that has not ended wait for; None when all of them run."""
    name, spec = found["metadata"]["name"], found["spec"]
    (job,) = spec["replicatedJobs"]
    nodes = job["template"]["spec"]["completions"]
    if spec.get("suspend"):
        queue = found["metadata"].get("labels", {}).get(QUEUE)
        by = f"the queue {queue} of Kueue has room" if queue else "somebody resumes it"
        return f"{nodes} further nodes: JobSet {name} is suspended until {by}"
    states = {state["name"]: state for state in found.get("status", {}).get("replicatedJobsStatus", [])}
    if states.get(JOB, {}).get("ready", 0) < job["replicas"]:
        return f"{nodes} further nodes: not all pods of JobSet {name} run yet"
    return None
