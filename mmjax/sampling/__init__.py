"""Samplers: they take callables and arrays, and know no model class."""
