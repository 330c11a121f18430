"""Families of models as tasks, one module each; see `base`."""

import pkgutil

__path__ = pkgutil.extend_path(__path__, __name__)
