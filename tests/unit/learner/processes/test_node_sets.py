"""JobSets for runs that ask for nodes: the official client, and a server in place of a cluster's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes_api import Cluster

from newt import extras
from newt.errors import InvalidInputError, UnavailableError
from services.learner.processes.job_set import QUEUE, name_of
from services.learner.processes.node_sets import NodeSets, require_nodes
from services.learner.settings import LearnerSettings

RUN = "Laptop-1a2b3c4d"
SETS = "/apis/jobset.x-k8s.io/v1alpha2/namespaces/lab/jobsets"
COMMAND = ["python", "-m", "services.learner.processes.node", "--index", "$(JOB_COMPLETION_INDEX)"]
SETTINGS = LearnerSettings(node_template="node", node_queue="training", node_namespace="lab")


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    cluster = Cluster()
    (tmp_path / "kubeconfig").write_text(cluster.kubeconfig())
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "node", "command": COMMAND}]}}
    cluster.objects["/api/v1/namespaces/lab/podtemplates/node"] = {"kind": "PodTemplate", "template": template}
    yield cluster
    cluster.shutdown()
    cluster.server_close()


class Nodes:
    """A NodeSets whose looks are the test's, and what it was told of runs."""

    def __init__(self, settings: LearnerSettings = SETTINGS) -> None:
        self.unfinished = {RUN}
        self.told = 0
        self.now_s = 0.0
        self.failed: list[str] = []
        self.sets = NodeSets(settings, lambda: self.unfinished, self._tell, self._fail, lambda: self.now_s)

    def _tell(self) -> None:
        self.told += 1

    def _fail(self, run_id: str, reason: str) -> None:
        self.failed.append(reason)
        self.unfinished.remove(run_id)

    def look(self, nodes: int = 2) -> str | None:
        """What the run waits for after one look."""
        self.sets.waits_for(RUN, nodes)
        self.sets.tick()
        return self.sets.waits_for(RUN, nodes)


def made(cluster: Cluster) -> dict[str, Any]:
    """The one JobSet."""
    (path,) = [path for path in cluster.objects if path.startswith(SETS)]
    return cluster.objects[path]


def run_pods(cluster: Cluster) -> None:
    """As JobSet's controller does."""
    made(cluster)["status"] = {"replicatedJobsStatus": [{"name": "node", "ready": 1, "active": 1}]}


def end(cluster: Cluster, how: str) -> None:
    """As JobSet's controller does."""
    made(cluster)["status"] = {"conditions": [{"type": how, "status": "True", "message": "so it is"}]}


def test_a_run_waits_for_its_queue_and_its_pods(cluster: Cluster) -> None:
    nodes = Nodes()
    assert "JobSet run-" in str(nodes.look())
    found = made(cluster)
    assert found["metadata"]["name"] == name_of(RUN)
    assert found["metadata"]["labels"][QUEUE] == "training"
    (job,) = found["spec"]["replicatedJobs"]
    assert job["template"]["spec"]["completions"] == job["template"]["spec"]["parallelism"] == 2
    pods = job["template"]["spec"]["template"]
    assert pods["metadata"] == {"labels": {"a": "b"}}
    assert pods["spec"]["containers"][0]["command"] == [*COMMAND, "--run", RUN]
    found["spec"]["suspend"] = True  # as Kueue does
    assert "until the queue training of Kueue has room" in str(nodes.look())
    found["spec"]["suspend"] = False
    assert "not all pods" in str(nodes.look())
    told = nodes.told
    run_pods(cluster)
    assert nodes.look() is None
    assert nodes.told == told + 1
    # Whoever asks again, because a node has died, waits for what is there by then.
    made(cluster)["status"] = {}
    assert "not all pods" in str(nodes.look())


def test_without_a_queue_nobody_holds_them_back(cluster: Cluster) -> None:
    Nodes(SETTINGS.model_copy(update={"node_queue": ""})).look()
    assert QUEUE not in made(cluster)["metadata"]["labels"]


def test_what_has_no_run_any_more_goes_and_nothing_else_does(cluster: Cluster) -> None:
    nodes = Nodes()
    nodes.look()
    cluster.objects[f"{SETS}/theirs"] = {"metadata": {"name": "theirs", "labels": {}}, "spec": {}}
    nodes.sets.tick()
    assert not cluster.removed
    nodes.unfinished = set()
    cluster.lingering = True
    nodes.sets.tick()
    nodes.sets.tick()  # once is enough
    assert cluster.removed == [f"{SETS}/{name_of(RUN)}"]


def test_the_next_learner_goes_on_with_what_is_there(cluster: Cluster) -> None:
    Nodes().look()
    run_pods(cluster)
    before = made(cluster)
    successor = Nodes()
    successor.sets.tick()
    assert successor.look() is None
    assert made(cluster) is before
    assert not cluster.removed


@pytest.mark.parametrize("how", ["Completed", "Failed"])
def test_one_that_has_ended_is_made_anew(cluster: Cluster, how: str) -> None:
    nodes = Nodes()
    nodes.look()
    end(cluster, how)
    cluster.lingering = True
    assert f"({how}: so it is)" in str(nodes.look())
    assert "of before has to go first" in str(nodes.look())
    cluster.objects.pop(f"{SETS}/{name_of(RUN)}")
    nodes.look()
    run_pods(cluster)
    assert nodes.look() is None


@pytest.mark.parametrize("run_first", [False, True])
def test_one_that_ends_again_and_again_fails_its_run(cluster: Cluster, run_first: bool) -> None:
    """Also if all pods run each time, for less than the window of restarts."""
    nodes = Nodes(SETTINGS.model_copy(update={"max_restarts": 2, "restart_window_s": 300.0}))
    for _ in range(3):
        assert "was made" in str(nodes.look())
        if run_first:
            run_pods(cluster)
            assert nodes.look() is None
            nodes.now_s += 299.0
        end(cluster, "Failed")
        assert not nodes.failed
        nodes.look()
    (reason,) = nodes.failed
    assert "3 JobSets in a row" in reason
    assert "Failed: so it is" in reason
    nodes.sets.tick()  # as that of any run that has ended, the last one goes
    assert not [path for path in cluster.objects if path.startswith(SETS)]
    # Resumed by somebody, it gets as many again.
    nodes.unfinished.add(RUN)
    assert "was made" in str(nodes.look())
    end(cluster, "Failed")
    assert "is made anew" in str(nodes.look())
    assert len(nodes.failed) == 1


def test_nodes_that_lasted_are_made_anew_as_often_as_they_end(cluster: Cluster) -> None:
    nodes = Nodes(SETTINGS.model_copy(update={"max_restarts": 0, "restart_window_s": 300.0}))
    for _ in range(3):
        nodes.look()
        run_pods(cluster)
        assert nodes.look() is None
        nodes.now_s += 300.0
        end(cluster, "Failed")
        assert "is made anew" in str(nodes.look())
    assert not nodes.failed


def test_a_failure_that_cannot_be_stored_is_told_again(cluster: Cluster) -> None:
    failed: list[str] = []

    def fail(run_id: str, reason: str) -> None:
        failed.append(reason)
        raise UnavailableError("Redis is away")

    sets = NodeSets(SETTINGS.model_copy(update={"max_restarts": 0}), lambda: {RUN}, lambda: None, fail, lambda: 0.0)
    sets.waits_for(RUN, 1)
    sets.tick()
    end(cluster, "Failed")
    for times in (1, 2):
        sets.tick()
        assert len(failed) == times
        assert "Redis is away" in str(sets.waits_for(RUN, 1))
    assert not cluster.removed


def test_nodes_of_a_run_that_trains_may_end_before_it(cluster: Cluster) -> None:
    nodes = Nodes()
    nodes.look()
    run_pods(cluster)
    assert nodes.look() is None
    end(cluster, "Completed")
    nodes.sets.tick()
    assert not cluster.removed


def test_a_cluster_that_refuses_or_is_away_is_told_and_asked_again(cluster: Cluster) -> None:
    nodes = Nodes()
    cluster.refused = {("POST", "jobsets")}
    assert "jobsets is forbidden: no right to POST" in str(nodes.look())
    cluster.refused = set()
    template = cluster.objects.pop("/api/v1/namespaces/lab/podtemplates/node")
    assert "Kubernetes does not do it" in str(nodes.look())
    cluster.objects["/api/v1/namespaces/lab/podtemplates/node"] = template
    nodes.look()
    run_pods(cluster)
    assert nodes.look() is None


def test_without_a_cluster_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert "Kubernetes does not do it" in str(Nodes().look())


def test_records_that_are_away_cost_no_node(cluster: Cluster) -> None:
    nodes = Nodes()
    nodes.look()

    def away() -> set[str]:
        raise UnavailableError("Redis is away")

    successor = NodeSets(SETTINGS, away, lambda: None, lambda run_id, reason: None)
    successor.waits_for(RUN, 2)
    successor.tick()
    assert "Redis is away" in str(successor.waits_for(RUN, 2))
    assert not cluster.removed


def test_its_thread_looks_at_once_when_it_is_asked(cluster: Cluster) -> None:
    told = threading.Event()
    sets = NodeSets(SETTINGS, lambda: {RUN}, told.set, lambda run_id, reason: None)
    sets.start()
    try:
        sets.waits_for(RUN, 1)
        assert told.wait(60)
        assert made(cluster)["metadata"]["annotations"] == {"newt.dev/run": RUN}
    finally:
        sets.stop()


def test_a_run_that_no_node_could_join_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError, match=r"resources\.nodes: this learner has no further nodes") as refused:
        require_nodes(LearnerSettings())
    assert {"NEWT_LEARNER_NODE_TEMPLATE", "NEWT_LEARNER_RENDEZVOUS"} <= set(str(refused.value).split())
    require_nodes(LearnerSettings(rendezvous="10.0.0.1:29400"))
    require_nodes(SETTINGS)
    monkeypatch.setattr(extras.util, "find_spec", lambda module: None)
    with pytest.raises(InvalidInputError, match=r"resources\.nodes: .* pip install 'newt\[kubernetes\]'"):
        require_nodes(SETTINGS)
    # One of before, when the library was there, waits.
    nodes = Nodes()
    nodes.sets.start()
    assert "pip install 'newt[kubernetes]'" in str(nodes.sets.waits_for(RUN, 1))
    nodes.sets.stop()
