"""Optional libraries."""

from __future__ import annotations

from importlib import import_module, util

from newt.errors import UnavailableError


def missing(module: str, extra: str) -> str | None:
    """What to install where an optional library is not there; None where it is."""
    if util.find_spec(module) is not None:
        return None
    return f"this needs the library {module}, which is not installed: pip install 'newt[{extra}]'"


def require(module: str, extra: str) -> None:
    """Says what to install where an optional library is missing.

    Raises:
        UnavailableError: It is.
    """
    what = missing(module, extra)
    if what is not None:
        raise UnavailableError(what)
    import_module(module)
