"""What a run is: its settings (`spec`), their presets, and its record with progress and results (`record`).

One schema serves as the request body of `POST /runs`, the stored record and the metadata of checkpoints.
"""
