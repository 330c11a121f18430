"""Losses: pure array to scalar functions, in float32."""

import pkgutil

__path__ = pkgutil.extend_path(__path__, __name__)
