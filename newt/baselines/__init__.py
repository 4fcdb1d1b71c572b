"""Algorithms to compare Newt with: pure torch, one readable module each."""
