"""Benchmarks: every figure is a ratio against a plain implementation that runs beside it. `python -m bench`."""
