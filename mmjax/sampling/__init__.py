"""Samplers: they take callables and arrays, and know no model class."""

import pkgutil

__path__ = pkgutil.extend_path(__path__, __name__)
