"""mmjax: multimodal vision-language research in JAX and Flax.

Another distribution may hold families, evaluators, fields and verbs of its own, in the
same folders below a folder `mmjax` on Python's path: they are found by their names.
"""

import pkgutil

__path__ = pkgutil.extend_path(__path__, __name__)
__version__ = "0.1.0"
