"""The child process of a play: an agent, an expert or a person acts in a simulator while somebody watches."""
