"""Scripted experts: a few lines of control theory each, which act from the simulator's own state.

One module per kind of body. A domain names the expert of each of its tasks and asks it only for demonstrations: an
expert is built at the first question, and never changes the simulation.
"""
