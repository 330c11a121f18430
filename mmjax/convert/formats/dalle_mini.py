"""dalle-mini's and DALL-E mega's BART: recognised, and why it does not fit."""

from mmjax.convert import formats
from mmjax.convert.name_table import Table
from mmjax.convert.read import Source
from mmjax.errors import UserError

ABOUT = "dalle-mini's prior: says what of it has no place here"
TASK = ""  # nothing of ours is written so
TABLE = Table(skip=("model.encoder.*", "model.decoder.*", "model/decoder*"))


def detect(source: Source) -> bool:
    return source.config_json.get("model_type") == "dallebart"


def to_mmjax(source: Source) -> formats.Model:
    theirs = source.config_json
    layers = theirs.get("encoder_layers", "?"), theirs.get("decoder_layers", "?")
    raise UserError(
        f"{source.place}: dalle-mini's prior does not fit mmjax's, which is one "
        f"decoder over text and image: it has an encoder of {layers[0]} layers for "
        f"the text and a decoder of {layers[1]} with cross-attention, gated "
        "feed-forwards (GLU), NormFormer's extra norms and no biases. Its image "
        "tokenizer is VQGAN f16-16384, which converts: --from taming_vqgan"
    )


def from_mmjax(model: formats.Model) -> formats.Export:
    raise UserError("dalle-mini's prior is an encoder and a decoder: none is written")
