"""What the parent process does: it starts, watches and ends the processes of jobs."""
