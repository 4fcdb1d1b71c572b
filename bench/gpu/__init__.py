"""One session on a machine with a GPU: is it right, and how fast. `python -m bench.gpu`, nine minutes at most."""
