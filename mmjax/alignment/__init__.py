"""Alignment in time."""
