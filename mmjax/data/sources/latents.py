"""Latents that `mmjax data encode` wrote: `latents:/data/shapes_latents`.

Records hold `latent` float32 (grid, grid, channels) in place of an image, as a
diffusion model sees them, with the captions, key and label of their source.
"""

from mmjax.data.sources import tokens


def open(path: str) -> tokens.Cache:
    """The cache in the folder `path`; UserError where it is none, or not whole."""
    return tokens.open(path, "latents")
