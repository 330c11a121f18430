"""minDALL-E's prior (kakaobrain, stage 2): recognised, and why it does not fit."""

from collections.abc import Iterable

from mmjax.convert import families
from mmjax.convert.read import Source
from mmjax.errors import UserError

ABOUT = "minDALL-E's prior: says what of it has no place here"
TASK = ""  # nothing of ours is written so
_KEYS = ("tok_emb_img", "tok_emb_txt", "pos_emb_img", "pos_emb_txt", "head_img")


def detect(source: Source) -> bool:
    return all(any(f"{name}.weight" in k for k in source.tensors) for name in _KEYS)


def known(keys: Iterable[str]) -> int:
    return sum(any(f"{name}." in key for name in _KEYS) for key in keys)


def to_mmjax(source: Source) -> families.Model:
    tensors = source.tensors
    (place,) = (tensors[k].shape for k in tensors if "pos_emb_img.weight" in k)
    side = round(place[0] ** 0.5)
    raise UserError(
        f"{source.place}: minDALL-E's prior does not fit mmjax's: an image token's "
        f"place is one of {place[0]} free vectors (pos_emb_img), here the sum of one "
        f"of {side} rows and one of {side} columns; padding is read as the token 0, "
        "here as a vector of its position; its BPE is in no file of the checkpoint. "
        "Blocks, "
        "norms and heads are the same (configs/prior.py:mindalle_1_3b trains one). Its "
        "image tokenizer has VQGAN's layout and converts: --from taming_vqgan"
    )


def from_mmjax(model: families.Model) -> families.Export:
    raise UserError(
        "minDALL-E's prior has another way to place tokens: none is written"
    )
