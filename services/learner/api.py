"""The REST API of runs. Thin: everything it says comes from the records, what it does is done by the supervisor."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Annotated, Literal

import anyio.to_thread
import structlog
from fastapi import FastAPI, Header, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

import newt
from newt import trace
from newt.errors import InvalidInputError, NotFoundError
from newt.runs.demos import (
    AgentDemosRequest,
    DemoCollection,
    DemoSetInfo,
    DemoSetList,
    FeatureDemosRequest,
    ScriptedDemosRequest,
)
from newt.runs.record import (
    ApiError,
    CheckpointList,
    Deleted,
    MetricsHistory,
    Readiness,
    Run,
    RunList,
    RunResults,
    RunState,
    TaskInfo,
    TaskList,
)
from newt.runs.spec import RunSpec
from newt.tasks.registry import Task, all_tasks
from newt.tasks.sets import TASK_SETS
from newt.trace import Trace
from services.learner import http_errors, metrics
from services.learner.checkpoint_routes import checkpoint_routes
from services.learner.checkpoints import CheckpointFolder
from services.learner.deletion import delete_run, delete_run_episodes
from services.learner.demo_jobs import DemoJobs
from services.learner.demo_sets import DemoSets
from services.learner.dependencies import Dependencies
from services.learner.evaluation_routes import evaluation_routes, video_response
from services.learner.fine_tuning import INITIAL_FILE, adopt
from services.learner.http_errors import REQUEST_ID_HEADER
from services.learner.jobs import EvaluationJobs
from services.learner.library import CheckpointLibrary, hold
from services.learner.settings import LearnerSettings
from services.learner.store import RunStore
from services.learner.supervisor import Supervisor

EVENT_POLL_S = 0.5
HEARTBEAT_S = 15.0
Source = Literal["trainer", "collector", "evaluation"]

log = structlog.get_logger(__name__)


def create_app(
    settings: LearnerSettings,
    store: RunStore,
    supervisor: Supervisor,
    jobs: EvaluationJobs,
    library: CheckpointLibrary,
    demo_sets: DemoSets,
    demo_jobs: DemoJobs,
    dependencies: Dependencies,
) -> FastAPI:
    """Builds the application; its OpenAPI description is served under /docs and /openapi.json."""
    error = {"model": ApiError}
    app = FastAPI(
        title="Newt learner",
        version=newt.__version__,
        description="Training runs of the Newt agent: start them, watch them, take the checkpoints home. Every request "
        "may bring an X-Request-Id; the reply has it, or a new one, and so have the logs of all services.",
        responses={404: error, 409: error, 422: error, 429: error, 503: error},
    )
    http_errors.install(app)
    app.include_router(evaluation_routes(settings, store, jobs))
    app.include_router(checkpoint_routes(library))

    @app.middleware("http")
    async def measure(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        start = time.perf_counter()
        with trace.following(Trace(request.headers.get(REQUEST_ID_HEADER, trace.new_id()))) as followed:
            response = await _answer(request, followed.request_id, call_next)
        route = getattr(request.scope.get("route"), "path", "none")  # the pattern: ids would be unbounded
        metrics.REQUESTS.labels(request.method, route, response.status_code).observe(time.perf_counter() - start)
        return response

    # ---- runs

    @app.post("/runs", status_code=201)
    def create_run(spec: RunSpec) -> Run:
        """Starts a run, or queues it. Unknown or impossible settings are answered with 422 naming the field."""
        settings.require_sims({task.domain for task in spec.task_list()})
        demo_sets.require_usable(spec.demos.sets)
        source = library.resolve(spec.init_from, "init_from") if spec.init_from is not None else None
        if source is not None:
            spec = adopt(spec, source)

        def prepare(run_id: str) -> Path:
            directory = (settings.data_dir / "runs" / run_id).resolve()
            if source is not None:
                hold(source.path, directory / INITIAL_FILE)
            return directory

        run = store.create(spec, prepare)
        log.info("run_created", run=run.id)
        supervisor.wake()
        return run

    @app.get("/runs")
    def list_runs(state: RunState | None = None) -> RunList:
        """All runs, oldest first."""
        return RunList(runs=[run for run in store.list_runs() if state in (None, run.state)])

    @app.get("/runs/{run_id}")
    def get_run(run_id: str) -> Run:
        """One run with its progress."""
        return store.get(run_id)

    @app.post("/runs/{run_id}/cancel")
    def cancel_run(run_id: str) -> Run:
        """Ends a run. Its processes write a last checkpoint and stop."""
        store.cancel(run_id)
        log.info("run_cancelled", run=run_id)
        supervisor.wake()
        return store.get(run_id)

    @app.post("/runs/{run_id}/resume")
    def resume_run(run_id: str) -> Run:
        """Queues a cancelled or failed run again; it goes on from its newest checkpoint."""
        store.resume(run_id)
        log.info("run_resumed", run=run_id)
        supervisor.wake()
        return store.get(run_id)

    @app.delete("/runs/{run_id}", status_code=204)
    def remove_run(run_id: str) -> None:
        """Removes a finished run: its replay buffer, checkpoints, evaluations and records. 409 while it runs."""
        delete_run(run_id, store, supervisor, jobs, demo_sets)

    @app.delete("/runs/{run_id}/episodes")
    def delete_episodes(run_id: str) -> Deleted:
        """Removes the episodes that an ended run has collected, which frees its demonstration sets for deletion.

        Checkpoints and results stay. If the run is resumed, it collects from the start.
        """
        return Deleted(episodes=delete_run_episodes(run_id, store, supervisor, demo_sets))

    # ---- what a run says

    @app.get("/runs/{run_id}/metrics")
    def get_metrics(
        run_id: str,
        source: Source | None = None,
        name: Annotated[list[str] | None, Query(description="Only these values.")] = None,
        after: Annotated[str, Query(pattern=r"^(-|\d+-\d+)$", description="Id of the last row that was read.")] = "-",
        limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    ) -> MetricsHistory:
        """The metrics history, oldest first."""
        store.get(run_id)
        rows = store.metrics(run_id, after=after, limit=limit, source=source, names=set(name) if name else None)
        return MetricsHistory(rows=rows)

    @app.get("/runs/{run_id}/events", response_class=StreamingResponse)
    async def get_events(
        run_id: str,
        after: Annotated[str, Query(pattern=r"^(-|\d+-\d+)$", description="Id of the last event that was seen.")] = "-",
        last_event_id: Annotated[str | None, Header(pattern=r"^\d+-\d+$")] = None,
    ) -> StreamingResponse:
        """Server-sent events: everything that happened, then what happens, and `progress` about once a second.

        The stream ends when the run has ended.
        """
        await anyio.to_thread.run_sync(store.get, run_id)
        return StreamingResponse(_events(store, run_id, last_event_id or after), media_type="text/event-stream")

    @app.get("/runs/{run_id}/results")
    def get_results(run_id: str) -> RunResults:
        """Scores per task: random policy, after pretraining, at the end; and all evaluations."""
        run = store.get(run_id)
        return RunResults.build(run_id, run.state, run.tasks, store.evaluations(run_id), store.videos(run_id))

    @app.get("/runs/{run_id}/videos/{name}", response_class=FileResponse)
    def get_video(run_id: str, name: str) -> FileResponse:
        """One video as MP4; names are in the results."""
        folder = settings.data_dir / "runs" / store.get(run_id).id / "videos"
        return video_response(
            folder, name, f"run {run_id} has no video {name!r}; GET /runs/{run_id}/results lists them"
        )

    @app.get("/runs/{run_id}/checkpoints")
    def list_checkpoints(run_id: str) -> CheckpointList:
        """Checkpoints, oldest first."""
        return CheckpointList(checkpoints=_checkpoints(run_id).list())

    @app.get("/runs/{run_id}/checkpoints/{name}", response_class=FileResponse)
    def download_checkpoint(run_id: str, name: str) -> FileResponse:
        """One checkpoint as safetensors, with its settings in the metadata; `newest` is a name too."""
        folder = _checkpoints(run_id)
        if name == "newest":
            names = [checkpoint.name for checkpoint in folder.list()]
            if not names:
                raise NotFoundError(f"run {run_id} has no checkpoint yet")
            name = names[-1]
        path = folder.path(name)
        return FileResponse(path, media_type="application/octet-stream", filename=f"{run_id}-{path.name}")

    def _checkpoints(run_id: str) -> CheckpointFolder:
        return CheckpointFolder(settings.data_dir / "runs" / store.get(run_id).id)

    # ---- what there is

    @app.get("/tasks")
    def list_tasks() -> TaskList:
        """All registered tasks, and whether they can be simulated here and now."""

        def simulator(task: Task) -> Literal["reachable", "unreachable", "not configured"]:
            if task.domain not in settings.sims:
                return "not configured"
            return "reachable" if dependencies.has_sim(task.domain) else "unreachable"

        fields = ("name", "domain", "split", "obs_dim", "action_dim", "episode_length", "has_success", "has_expert")
        return TaskList(
            tasks=[
                TaskInfo(
                    **{field: getattr(task, field) for field in fields},
                    instruction=task.instruction,
                    simulator=simulator(task),
                )
                for task in all_tasks()
            ],
            sets={task_set.name: task_set.description for task_set in TASK_SETS.values()},
        )

    # ---- demonstrations

    @app.get("/demos")
    def list_demos() -> DemoSetList:
        """Demonstration sets with their contents by task, and how each was collected."""
        return demo_sets.list()

    @app.get("/demos/{name}")
    def get_demos(name: str) -> DemoSetInfo:
        """One demonstration set."""
        return demo_sets.get(name)

    @app.post("/demos", status_code=202)
    def collect_scripted_demos(request: ScriptedDemosRequest) -> DemoCollection:
        """Collects a new set from scripted experts. Asking again for the same is harmless."""
        return demo_jobs.start_scripted(request)

    @app.post("/runs/{run_id}/demos", status_code=202)
    def collect_agent_demos(run_id: str, request: AgentDemosRequest) -> DemoCollection:
        """Collects a new set from the agent of a run. Asking again for the same is harmless.

        The agent plays twice as many episodes as are wanted; those whose return exceeds a threshold below the median
        are kept, if they succeed where success is what the task is about. A task with too few of them is left out.
        """
        return demo_jobs.start_agent(store.get(run_id), request)

    @app.post("/demos/features", status_code=202)
    def compute_demo_features(request: FeatureDemosRequest) -> DemoCollection:
        """Makes a set with image features of one without, by playing its episodes again. The old set stays."""
        return demo_jobs.start_features(request)

    @app.post("/demos/{name}/cancel")
    def cancel_demos(name: str) -> DemoCollection:
        """Ends a collection and removes what it has stored."""
        return demo_jobs.cancel(name)

    @app.delete("/demos/{name}")
    def delete_demos(name: str) -> Deleted:
        """Removes a set that no run uses."""
        return Deleted(episodes=demo_sets.delete(name))

    # ---- operations

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        """Whether this process answers."""
        return {"status": "ok"}

    @app.get("/readyz")
    def readyz(response: Response) -> Readiness:
        """Whether runs can run: 503 and the names of what is missing, otherwise."""
        readiness = dependencies.readiness()
        response.status_code = 200 if readiness.ready else 503
        return readiness

    @app.get("/metrics", response_class=Response)
    def prometheus() -> Response:
        """Metrics for Prometheus."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return app


async def _answer(request: Request, request_id: str, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """The reply with the request's id, which all logs of what it leads to will show."""
    if not trace.is_id(request_id):
        message = f"got {request_id[:80]!r}, expected 1 to 64 of A-Z a-z 0-9 . _ : -, or leave the header out"
        return http_errors.reply_to(request, InvalidInputError(REQUEST_ID_HEADER, message))
    request.state.request_id = request_id
    response = await call_next(request)
    response.headers[REQUEST_ID_HEADER] = request_id
    return response


async def _events(store: RunStore, run_id: str, position: str) -> AsyncIterator[str]:
    last, quiet_s = "", 0.0
    while True:
        # The state is read before the events, so that the last ones are not lost.
        run = await anyio.to_thread.run_sync(store.get, run_id)
        for event in await anyio.to_thread.run_sync(store.events, run_id, position):
            position = event.id
            yield f"id: {event.id}\nevent: {event.kind}\ndata: {event.model_dump_json()}\n\n"
        progress = json.dumps({"state": run.state.value, **run.progress.model_dump(mode="json")})
        quiet_s += EVENT_POLL_S
        if progress != last:
            last, quiet_s = progress, 0.0
            yield f"event: progress\ndata: {progress}\n\n"
        elif quiet_s >= HEARTBEAT_S:
            quiet_s = 0.0
            yield ": nothing new\n\n"  # a comment, so that no proxy takes the silence for death
        if run.state.finished:
            return
        await anyio.sleep(EVENT_POLL_S)
