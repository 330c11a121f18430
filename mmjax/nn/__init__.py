"""Layers: numbers in, arrays out, no config objects."""

import pkgutil

__path__ = pkgutil.extend_path(__path__, __name__)
