"""SigLIP's image towers as timm names and keeps them, in open_clip's `visual.trunk`."""

import re
from typing import Any

from mmjax.convert.formats import _clip_config
from mmjax.convert.formats._rules import TIMM, blocks, layer, norm
from mmjax.convert.name_table import Rule
from mmjax.convert.transforms import DENSE, PATCHES, joined, squeezed
from mmjax.errors import UserError
from mmjax.models.vit import ViT

_TRUNK, _POOL = "visual.trunk", "visual.trunk.attn_pool"
_HEAD = "params/image/head"
KEY = f"{_TRUNK}.patch_embed.proj.weight"  # of these towers alone
RULES = [
    *layer(f"{_TRUNK}.patch_embed.proj", "params/image/patches", PATCHES),
    Rule(f"{_TRUNK}.pos_embed", "params/image/position_embedding", squeezed(1)),
    *blocks(f"{_TRUNK}.blocks", "params/image/transformer", TIMM),
    *norm(f"{_TRUNK}.norm", "params/image/norm_post"),
    Rule(f"{_POOL}.latent", f"{_HEAD}/probe", squeezed(2)),
    Rule(
        [f"{_POOL}.q.weight", f"{_POOL}.kv.weight"],
        f"{_HEAD}/qkv/kernel",
        joined((1, 2), DENSE),
    ),
    Rule([f"{_POOL}.q.bias", f"{_POOL}.kv.bias"], f"{_HEAD}/qkv/bias", joined((1, 2))),
    *layer(f"{_POOL}.proj", f"{_HEAD}/out"),
    *norm(f"{_POOL}.norm", f"{_HEAD}/norm"),
    *layer(f"{_POOL}.mlp.fc1", f"{_HEAD}/mlp/fc"),
    *layer(f"{_POOL}.mlp.fc2", f"{_HEAD}/mlp/proj"),
]
# name: (width, depth, heads, mlp_ratio, act, {patch: a resolution of that name})
_SIZES = {
    "base": (768, 12, 12, 4.0, "gelu", {16: 224, 32: 256}),
    "large": (1024, 24, 16, 4.0, "gelu", {16: 256}),
    "so400m": (1152, 27, 16, 3.7362, "gelu", {14: 224, 16: 256}),
    "giantopt": (1536, 40, 16, 4.0, "gelu_tanh", {16: 256}),
}


def tower(name: str) -> dict[str, Any]:
    """Fields of our ViT for a name such as `vit_base_patch16_siglip_224`."""
    hit = re.fullmatch(r"vit_(\w+?)_patch(\d+)_siglip_\d+(\.\w+)?", name)
    if hit is None or hit[1] not in _SIZES:
        raise UserError(
            f"open_clip's vision_cfg.timm_model_name is {name!r}: of timm's towers "
            f"only SigLIP's fit (vit_SIZE_patchN_siglip_PX, SIZE {', '.join(_SIZES)})"
        )
    width, depth, heads, mlp_ratio, act, _ = _SIZES[hit[1]]
    return {
        "kind": "vit",
        "pool": "map",
        "width": width,
        "depth": depth,
        "heads": heads,
        "mlp_ratio": mlp_ratio,
        "patch": int(hit[2]),
        "act": act,
        "eps": 1e-6,
    }


def config(image: ViT) -> dict[str, Any]:
    """`vision_cfg` of a tower; UserError where timm has no name for its numbers."""
    numbers = image.width, image.depth, _clip_config.heads(image)
    for name, (width, depth, heads, mlp_ratio, act, sizes) in _SIZES.items():
        same = numbers == (width, depth, heads)
        same = same and _clip_config.hidden(image) == int(mlp_ratio * width)
        if same and (image.act, image.eps) == (act, 1e-6) and image.patch in sizes:
            size = sizes[image.patch]
            return {
                "timm_model_name": f"vit_{name}_patch{image.patch}_siglip_{size}",
                "timm_model_pretrained": False,
                "timm_pool": "map",
                "timm_proj": "none",
            }
    raise UserError(
        f"timm has no SigLIP tower of width {image.width}, depth {image.depth}, patch "
        f"{image.patch}, act {image.act}, eps {image.eps}: use --to hf_siglip"
    )
