"""The one-machine launcher: every service as a process on loopback, with an embedded Redis."""
