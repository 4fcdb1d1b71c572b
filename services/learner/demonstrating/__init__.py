"""The process that makes a set of demonstrations."""
