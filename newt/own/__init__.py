"""Tasks of somebody's own: their declaration, and the words by which commands and services name where they come from.

    from newt.own import OwnTask, Returns

docs/your-own-task.md is the guide.
"""

from newt.own.declaration import OwnTask, Returns, Success

__all__ = ["OwnTask", "Returns", "Success"]
