"""The figures of the domains as a table of their own: a row per domain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PREFIX = "domains."
_HEAD = (
    "| Domain | In process, one instance | Through the service | AsyncVectorEnv | Ratio (quartiles) | Goal | "
    "MB per instance: service / in process / AsyncVectorEnv | Service ready after | With MB |\n"
    "|---|---|---|---|---|---|---|---|---|\n"
)


def markdown(values: Mapping[str, Any]) -> str:
    """The table, with speeds in env steps per second and core; nothing if no domain was measured."""
    suffix = ".speed.ratio"
    domains = [key[len(PREFIX) : -len(suffix)] for key in values if key.startswith(PREFIX) and key.endswith(suffix)]
    return "\n" + _HEAD + "".join(_row(domain, values) for domain in domains) if domains else ""


def _row(domain: str, values: Mapping[str, Any]) -> str:
    def value(name: str) -> Any:
        return values[f"{PREFIX}{domain}.{name}"]

    met = "met" if value("speed.met") else "**missed**"
    cells = (
        f"`{domain}`",
        f"{value('alone'):,.0f}",
        f"{value('speed.ours'):,.0f}",
        f"{value('speed.plain'):,.0f}",
        f"{value('speed.ratio'):.2f} ({value('speed.ratio.low'):.3g} to {value('speed.ratio.high'):.3g})",
        f"{value('speed.goal')} {met}",
        " / ".join(f"{value(name):.3g}" for name in ("service_mb", "alone_mb", "async_mb")),
        f"{value('start'):.1f} s",
        f"{value('start_mb'):.0f}",
    )
    return f"| {' | '.join(cells)} |\n"
