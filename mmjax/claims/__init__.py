"""Experiments: runs of a grid and of seeds, their intervals, and what they decide."""
