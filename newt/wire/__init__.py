"""gRPC plumbing shared by all services: generated stubs (v1), tensors, channels, servers, status codes."""
