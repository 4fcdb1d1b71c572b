"""What `newt env init` copies: an environment to begin with, and its test."""
