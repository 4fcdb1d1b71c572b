"""Acting in simulators, shared by collecting, evaluating and demonstrating."""
