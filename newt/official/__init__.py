"""Published artifacts, in and out: agent checkpoints and demonstration files.

These files are pickles inside a zip archive. They are read without running anything that they name (see
`newt.official.pickled`), checked whole, and only then converted.
"""
