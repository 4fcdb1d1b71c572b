"""Newt: massively multitask world-model reinforcement learning as a deployment."""

__version__ = "0.1.0"
