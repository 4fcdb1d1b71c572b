"""The training processes of a run."""
