"""The route of presets: what a request leaves to them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from newt.runs.algorithms import AlgorithmName
from newt.runs.presets import PresetName
from newt.runs.spec import unnamed_settings
from newt.wire.limits import MAX_COUNT


def preset_routes() -> APIRouter:
    """Builds the route."""
    router = APIRouter(tags=["runs"])

    @router.get("/presets/{preset}")
    def get_preset(
        preset: PresetName,
        algorithm: AlgorithmName = "newt",
        total_env_steps: Annotated[int | None, Query(ge=1, le=MAX_COUNT)] = None,
        init_from: Annotated[str | None, Query(max_length=256)] = None,
    ) -> dict[str, Any]:
        """The settings of a run whose request names no more than these.

        With `init_from`, those are missing that the run takes over from the checkpoint. It is not looked for.
        """
        request: dict[str, Any] = {"preset": preset, "algorithm": {"name": algorithm}, "init_from": init_from}
        if total_env_steps is not None:
            request["schedule"] = {"total_env_steps": total_env_steps}
        return {**unnamed_settings(request), "preset": preset}

    return router
