"""The collecting process of a run."""
