"""Layers: numbers in, arrays out, no config objects."""
