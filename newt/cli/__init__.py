"""The `newt` command: a thin client of the REST API and of the local launcher."""
