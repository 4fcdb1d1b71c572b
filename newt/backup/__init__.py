"""Backups of a deployment: what Redis holds and the learner's folders, copied while runs go on, and put back."""
