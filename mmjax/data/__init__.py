"""Records, sources, image operations, tokenizers and the batch pipeline."""

import pkgutil

__path__ = pkgutil.extend_path(__path__, __name__)
