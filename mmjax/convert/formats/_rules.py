"""Rules that tables of several formats are made of."""

from collections.abc import Mapping

from mmjax.convert.name_table import Rule
from mmjax.convert.transforms import CONV, DENSE, POINT, SAME, Form, joined

# torch.nn.MultiheadAttention's one matrix for queries, keys and values
PACKED = ("_weight", "_bias")


def norm(theirs: str, ours: str) -> list[Rule]:
    """A norm's gain and bias."""
    return [
        Rule(f"{theirs}.weight", f"{ours}/scale"),
        Rule(f"{theirs}.bias", f"{ours}/bias"),
    ]


def layer(
    theirs: str | list[str],
    ours: str,
    form: Form = DENSE,
    *,
    ends: tuple[str, str] = (".weight", ".bias"),
) -> list[Rule]:
    """A layer's kernel and bias; where there is no bias its rule is idle.

    Args:
      theirs: the layer, or several that lie side by side in ours.
      form: of the kernel.
      ends: what follows the layer's name in the keys.
    """
    names = [theirs] if isinstance(theirs, str) else theirs
    forms = form, SAME
    if len(names) > 1:
        forms = joined(len(names), form), joined(len(names))
    return [
        Rule([name + end for name in names], f"{ours}/{leaf}", own)
        for end, leaf, own in zip(ends, ("kernel", "bias"), forms, strict=True)
    ]


# What a block's parts are called; queries, keys and values have one name or three.
OPEN_CLIP = {
    "norm_1": "ln_1",
    "norm_2": "ln_2",
    "attn/qkv": "attn.in_proj",
    "attn/out": "attn.out_proj",
    "mlp/fc": "mlp.c_fc",
    "mlp/proj": "mlp.c_proj",
}
HUGGING_FACE = {
    "norm_1": "layer_norm1",
    "norm_2": "layer_norm2",
    "attn/qkv": "self_attn.q_proj self_attn.k_proj self_attn.v_proj",
    "attn/out": "self_attn.out_proj",
    "mlp/fc": "mlp.fc1",
    "mlp/proj": "mlp.fc2",
}
TIMM = {
    "norm_1": "norm1",
    "norm_2": "norm2",
    "attn/qkv": "attn.qkv",
    "attn/out": "attn.proj",
    "mlp/fc": "mlp.fc1",
    "mlp/proj": "mlp.fc2",
}
MINDALLE = {
    "norm_1": "ln1",
    "norm_2": "ln2",
    "attn/qkv": "attn.query attn.key attn.value",
    "attn/out": "attn.proj",
    "fc": "mlp.0",
    "proj": "mlp.2",
}


def blocks(theirs: str, ours: str, names: Mapping[str, str]) -> list[Rule]:
    """The blocks of a transformer: `theirs.{i}.*` and `ours/block_{i}/*`."""
    rules = []
    for part, name in names.items():
        keys = [f"{theirs}.{{i}}.{n}" for n in name.split()]
        place = f"{ours}/block_{{i}}/{part}"
        if part.startswith("norm"):
            rules += norm(keys[0], place)
        elif name.endswith("in_proj"):
            rules += layer(keys, place, ends=PACKED)
        else:
            rules += layer(keys, place)
    return rules


def resnet(theirs: str, ours: str, stats: str) -> list[Rule]:
    """CLIP's modified ResNet, without the output projection of its pooling."""

    def convolution(conv: str, bn: str, part: str, place: str, form: Form):
        """A convolution without a bias, and its batch norm."""
        return [
            Rule(f"{theirs}.{conv}.weight", f"{ours}/{part}/kernel", form),
            *norm(f"{theirs}.{bn}", f"{ours}/{place}"),
            Rule(f"{theirs}.{bn}.running_mean", f"{stats}/{place}/mean"),
            Rule(f"{theirs}.{bn}.running_var", f"{stats}/{place}/var"),
        ]

    rules = []
    for i in (1, 2, 3):
        rules += convolution(f"conv{i}", f"bn{i}", f"conv_{i}", f"norm_{i}", CONV)
    parts = {
        "reduce": ("conv1", "bn1", POINT),
        "conv": ("conv2", "bn2", CONV),
        "expand": ("conv3", "bn3", POINT),
        "skip": ("downsample.0", "downsample.1", POINT),
    }
    block, own = "layer{s+1}.{b}", "stage_{s}_block_{b}"
    for part, (conv, bn, form) in parts.items():
        names = f"{block}.{conv}", f"{block}.{bn}"
        rules += convolution(*names, f"{own}/{part}", f"{own}/norm_{part}", form)
    pool, place = f"{theirs}.attnpool", f"{ours}/pool"
    return [
        *rules,
        Rule(f"{pool}.positional_embedding", f"{place}/position_embedding"),
        *layer(f"{pool}.q_proj", f"{place}/query"),
        *layer([f"{pool}.k_proj", f"{pool}.v_proj"], f"{place}/key_value"),
    ]
