"""The replay service: demos and online episodes in Redis, training batches out of a memory mirror."""
