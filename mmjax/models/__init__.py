"""Models: Linen modules with plain fields, built by name in `presets`."""

import pkgutil

__path__ = pkgutil.extend_path(__path__, __name__)
