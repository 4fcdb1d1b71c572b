"""Runs: REST API, training, collection, evaluation, weights hub."""
