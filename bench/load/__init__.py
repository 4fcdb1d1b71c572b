"""A load generator: fakes thousands of env instances against a real planner, a real replay service and a real Redis.

`python -m bench.load`. What it reports per env step carries over to other machines better than any speed: bytes on the
wire, and seconds of processor time in each service, which a busy machine lengthens little.
"""
