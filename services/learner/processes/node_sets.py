"""Further nodes of runs on demand: the learner makes a JobSet of Kubernetes for each run that asks for nodes."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import structlog

from newt.errors import InvalidInputError, NewtError
from newt.extras import missing
from services.learner.processes.job_set import (
    GROUP,
    MANAGER,
    OURS,
    PLURAL,
    VERSION,
    Object,
    ended,
    goes,
    job_set,
    name_of,
    run_of,
    waits_for,
)
from services.learner.settings import LearnerSettings

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

TICK_S = 5.0
# Of one call; the thread may be in a few of them when the learner stops.
CALL_TIMEOUT_S = 10.0

log = structlog.get_logger(__name__)


def require_nodes(settings: LearnerSettings) -> None:
    """Refuses runs over several nodes where no further node could ever join.

    Raises:
        InvalidInputError: The learner makes none, and nobody else's would find it.
    """
    if settings.node_template:
        what = missing("kubernetes", "kubernetes")
        if what is not None:
            raise InvalidInputError("resources.nodes", f"the learner cannot make nodes in Kubernetes: {what}")
    elif "rendezvous" not in settings.model_fields_set:
        raise InvalidInputError(
            "resources.nodes",
            "this learner has no further nodes: NEWT_LEARNER_NODE_TEMPLATE lets it make them in Kubernetes, "
            "NEWT_LEARNER_RENDEZVOUS says where those meet it that you start yourself (docs/deployment.md)",
        )


class NodeSets:
    """Makes JobSets for the runs that wait for their nodes, and removes those of runs that have ended, from one thread.

    What there is, is asked of the cluster, so a restarted learner goes on where its predecessor ended. A JobSet that
    has ended (its run was resumed, or all of its pods failed too often) is made anew when its run waits for it, but not
    without end: a run whose nodes never last as long as `restart_window_s` fails after `max_restarts` of them more.

    Args:
        settings: Settings that name the namespace, the pods' template and the queue, and bound what is made anew.
        unfinished: Ids of the runs that have not ended; may raise NewtError while the answer is not known.
        changed: Called when a run's nodes wait for something else, or for nothing any more.
        failed: Called with a run's id and the reason when no more nodes are made for it; may raise NewtError while
            that cannot be stored, and is then called again.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        settings: LearnerSettings,
        unfinished: Callable[[], Collection[str]],
        changed: Callable[[], None],
        failed: Callable[[str, str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._unfinished, self._changed, self._failed = settings, unfinished, changed, failed
        self._clock = clock
        self._lock = threading.Lock()
        self._asked: dict[str, int] = {}
        self._waits_for: dict[str, str | None] = {}
        self._made: dict[str, int] = {}  # JobSets since the last one that lasted
        self._ran_at: dict[str, float] = {}
        self._client: ApiClient | None = None
        self._missing = missing("kubernetes", "kubernetes")
        self._told = ""
        self._over, self._look = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._loop, name="node-sets", daemon=True)

    def start(self) -> None:
        """Begins to look after the JobSets."""
        if self._missing is None:
            self._thread.start()
        else:
            log.warning("node_sets_wait", reason=self._missing)

    def stop(self) -> None:
        """Ends that; the JobSets stay as they are."""
        self._over.set()
        self._look.set()
        if self._thread.is_alive():
            self._thread.join(2 * CALL_TIMEOUT_S)

    def waits_for(self, run_id: str, nodes: int) -> str | None:
        """What a run's nodes wait for; None, once, when they run: whoever asks again waits for them anew.

        Args:
            run_id: Whose nodes; they are made if there are none.
            nodes: How many, without the learner's.
        """
        if self._missing is not None:
            return f"{nodes} further nodes: {self._missing}"
        with self._lock:
            if run_id not in self._asked:
                ran_at = self._ran_at.pop(run_id, None)
                if ran_at is not None and self._clock() - ran_at >= self._settings.restart_window_s:
                    self._made.pop(run_id, None)
                self._asked[run_id] = nodes
                self._waits_for[run_id] = f"{nodes} further nodes: Kubernetes is asked for them"
                self._look.set()
            reason = self._waits_for[run_id]
            if reason is None:
                del self._asked[run_id]
                self._ran_at[run_id] = self._clock()
            return reason

    def tick(self) -> None:
        """One look at the runs and at the cluster."""
        from kubernetes.client.exceptions import OpenApiException
        from kubernetes.config import ConfigException
        from urllib3.exceptions import HTTPError

        with self._lock:
            asked = dict(self._asked)
        try:
            found = {item["metadata"]["name"]: item for item in self._list()}
            # After the list: what is there of a run that was not there yet would look like one of the past.
            unfinished = self._unfinished()
            for name, item in found.items():
                if run_of(item) not in unfinished and not goes(item):
                    self._delete(name)
            for run_id in self._known() - set(unfinished):
                self._forget(run_id)
            for run_id, nodes in asked.items():
                if run_id in unfinished:
                    self._note(run_id, self._see_to(run_id, nodes, found.get(name_of(run_id))))
            self._told = ""
        except NewtError as error:
            self._tell(str(error), asked)
        except (OpenApiException, ConfigException, HTTPError) as error:
            self._client = None
            self._tell(f"Kubernetes does not do it: {_words(error)}", asked)

    def _see_to(self, run_id: str, nodes: int, found: Object | None) -> str | None:
        if found is None:
            self._create(job_set(run_id, nodes, self._template(), self._settings.node_queue))
            with self._lock:
                self._made[run_id] = self._made.get(run_id, 0) + 1
            return f"{nodes} further nodes: JobSet {name_of(run_id)} was made"
        if goes(found):
            return f"{nodes} further nodes: JobSet {name_of(run_id)} of before has to go first"
        how = ended(found)
        if how is not None:
            made = self._made.get(run_id, 0)
            if made > self._settings.max_restarts:
                self._failed(
                    run_id,
                    f"its {nodes} further nodes do not last: {made} JobSets in a row have ended, the last one with "
                    f"{how}; kubectl -n {self._settings.node_namespace} describes {name_of(run_id)} and its pods",
                )
                return f"{nodes} further nodes: JobSet {name_of(run_id)} has ended and is not made again ({how})"
            self._delete(found["metadata"]["name"])
            return f"{nodes} further nodes: JobSet {name_of(run_id)} has ended and is made anew ({how})"
        return waits_for(found)

    def _note(self, run_id: str, reason: str | None) -> None:
        with self._lock:
            new = run_id in self._asked and self._waits_for[run_id] != reason
            if new:
                self._waits_for[run_id] = reason
        if new:
            self._changed()

    def _known(self) -> set[str]:
        with self._lock:
            return {*self._asked, *self._waits_for, *self._made, *self._ran_at}

    def _forget(self, run_id: str) -> None:
        with self._lock:
            self._asked.pop(run_id, None)
            for kept in (self._waits_for, self._made, self._ran_at):
                kept.pop(run_id, None)

    def _tell(self, what: str, asked: dict[str, int]) -> None:
        """To those who wait, and once in the log."""
        for run_id, nodes in asked.items():
            self._note(run_id, f"{nodes} further nodes: {what}")
        if self._told != what:
            self._told = what
            log.warning("node_sets_wait", reason=what)

    # ---- the cluster

    def _api(self) -> ApiClient:
        from kubernetes import client, config

        if self._client is None:
            configuration = client.Configuration()
            try:
                config.load_incluster_config(client_configuration=configuration)
            except config.ConfigException:  # not in a pod: a learner beside the cluster
                # Named here, because the library reads the variable when it is imported.
                file = os.environ.get("KUBECONFIG")
                config.load_kube_config(config_file=file, client_configuration=configuration)
            self._client = client.ApiClient(configuration)
        return self._client

    def _list(self) -> list[Object]:
        from kubernetes.client import CustomObjectsApi

        where = (GROUP, VERSION, self._settings.node_namespace, PLURAL)
        selector = f"{MANAGER}={OURS}"
        answer = CustomObjectsApi(self._api()).list_namespaced_custom_object(
            *where, label_selector=selector, _request_timeout=CALL_TIMEOUT_S
        )
        items: list[Object] = answer["items"]
        return items

    def _template(self) -> Object:
        from kubernetes.client import CoreV1Api

        answer = CoreV1Api(self._api()).read_namespaced_pod_template(
            self._settings.node_template,
            self._settings.node_namespace,
            _preload_content=False,  # as it is: the client's classes drop what they do not know
            _request_timeout=CALL_TIMEOUT_S,
        )
        template: Object = json.loads(answer.data)["template"]
        return template

    def _create(self, body: Object) -> None:
        from kubernetes.client import CustomObjectsApi

        where = (GROUP, VERSION, self._settings.node_namespace, PLURAL)
        CustomObjectsApi(self._api()).create_namespaced_custom_object(*where, body, _request_timeout=CALL_TIMEOUT_S)
        log.info("node_set_made", run=run_of(body), name=body["metadata"]["name"])

    def _delete(self, name: str) -> None:
        from kubernetes.client import ApiException, CustomObjectsApi

        where = (GROUP, VERSION, self._settings.node_namespace, PLURAL, name)
        try:
            # In the foreground: it stays, marked, until its pods are gone; only then comes the next of its name.
            CustomObjectsApi(self._api()).delete_namespaced_custom_object(
                *where, propagation_policy="Foreground", _request_timeout=CALL_TIMEOUT_S
            )
        except ApiException as error:
            if error.status != 404:
                raise
        log.info("node_set_removed", name=name)

    def _loop(self) -> None:
        while not self._over.is_set():
            self._look.wait(TICK_S)
            self._look.clear()
            if self._over.is_set():
                return
            try:
                self.tick()
            except Exception:
                log.exception("node_sets_failed")  # this thread must outlive any surprise


def _words(error: Exception) -> str:
    """What the cluster says about a refusal; the whole error has all headers."""
    try:
        return str(json.loads(getattr(error, "body", ""))["message"])
    except (ValueError, TypeError, KeyError):
        return str(error)
