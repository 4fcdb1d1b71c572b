"""The process of an evaluation."""
