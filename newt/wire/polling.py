"""How gRPC waits for the network, which it reads from the environment when it is loaded."""

from __future__ import annotations

GRPC_ENVIRONMENT = {"GRPC_EXPERIMENTS": "-event_engine_client,-event_engine_listener"}
"""For processes of which many messages are in lockstep, as simulator steps are.

By default gRPC reads sockets in threads of its own, which wake the thread that waits for the message. Without its event
engine the waiting thread reads for itself: a third less CPU time per step of a light simulator, and nothing else
changes. A version of gRPC that no longer knows the words ignores them.
"""
