"""What one machine needs to run everything by itself."""
