"""Demonstrations that others have recorded, in and out: npz, HDF5, Minari and LeRobot.

    for episode in Recordings(open_recording("pushes.npz"), lookup, task="mw-push").episodes():
        ...

`docs/demonstrations.md` says what is read of each format. Files are read an episode at a time, however long they are.
"""
