"""The one process of a run whose algorithm learns where the simulators are stepped."""
