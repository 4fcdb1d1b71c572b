"""What every child process stands on."""
