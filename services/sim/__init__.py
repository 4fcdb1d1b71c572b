"""Simulators as a service: one gRPC server, worker processes that hold the instances, domains as plug-ins."""
