"""The task registry: facts, instructions, task sets, discounts and language embeddings.

Needs nothing but the standard library to list tasks and NumPy to read cached embeddings; torch and
transformers are imported only when a text has to be encoded that no cache holds.
"""
