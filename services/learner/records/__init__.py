"""Records in Redis, shared by the parent and its children."""
