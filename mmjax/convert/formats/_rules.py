"""Rules that tables of several formats are made of."""

from collections.abc import Mapping

from mmjax.convert.name_table import Rule
from mmjax.convert.transforms import CONV, DENSE, PATCHES, POINT, SAME, joined


def norm(theirs: str, ours: str) -> list[Rule]:
    """A norm's gain and bias."""
    return [
        Rule(f"{theirs}.weight", f"{ours}/scale"),
        Rule(f"{theirs}.bias", f"{ours}/bias"),
    ]


def dense(theirs: str, ours: str) -> list[Rule]:
    """A dense layer's kernel and bias; where there is no bias its rule is idle."""
    return [
        Rule(f"{theirs}.weight", f"{ours}/kernel", DENSE),
        Rule(f"{theirs}.bias", f"{ours}/bias"),
    ]


def fused(theirs: list[str], ours: str) -> list[Rule]:
    """Dense layers side by side: queries, keys and values."""
    count = len(theirs)
    return [
        Rule([f"{t}.weight" for t in theirs], f"{ours}/kernel", joined(count, DENSE)),
        Rule([f"{t}.bias" for t in theirs], f"{ours}/bias", joined(count)),
    ]


# What a block's parts are called; queries, keys and values have one name or three.
OPEN_CLIP = {
    "norm_1": "ln_1",
    "norm_2": "ln_2",
    "attn/out": "attn.out_proj",
    "mlp/fc": "mlp.c_fc",
    "mlp/proj": "mlp.c_proj",
}
HUGGING_FACE = {
    "norm_1": "layer_norm1",
    "norm_2": "layer_norm2",
    "attn/qkv": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
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


def blocks(theirs: str, ours: str, names: Mapping[str, str | list[str]]) -> list[Rule]:
    """The blocks of a transformer: `theirs.{i}.*` and `ours/block_{i}/*`."""
    rules = []
    for part, name in names.items():
        place = f"{ours}/block_{{i}}/{part}"
        if isinstance(name, list):
            rules += fused([f"{theirs}.{{i}}.{n}" for n in name], place)
        elif part.startswith("norm"):
            rules += norm(f"{theirs}.{{i}}.{name}", place)
        else:
            rules += dense(f"{theirs}.{{i}}.{name}", place)
    if "attn/qkv" not in names:
        rules += packed(f"{theirs}.{{i}}.attn", f"{ours}/block_{{i}}/attn/qkv")
    return rules


def packed(theirs: str, ours: str) -> list[Rule]:
    """torch.nn.MultiheadAttention's one matrix for queries, keys and values."""
    return [
        Rule(f"{theirs}.in_proj_weight", f"{ours}/kernel", DENSE),
        Rule(f"{theirs}.in_proj_bias", f"{ours}/bias", SAME),
    ]


def resnet(theirs: str, ours: str, stats: str) -> list[Rule]:
    """CLIP's modified ResNet, without the output projection of its pooling."""

    def batch_norm(name: str, place: str) -> list[Rule]:
        return [
            *norm(f"{theirs}.{name}", f"{ours}/{place}"),
            Rule(f"{theirs}.{name}.running_mean", f"{stats}/{place}/mean"),
            Rule(f"{theirs}.{name}.running_var", f"{stats}/{place}/var"),
        ]

    rules = []
    for i in (1, 2, 3):
        rules.append(Rule(f"{theirs}.conv{i}.weight", f"{ours}/conv_{i}/kernel", CONV))
        rules += batch_norm(f"bn{i}", f"norm_{i}")
    layer, block = "layer{s+1}.{b}", "stage_{s}_block_{b}"
    parts = [
        ("conv1", "bn1", "reduce", POINT),
        ("conv2", "bn2", "conv", CONV),
        ("conv3", "bn3", "expand", POINT),
        ("downsample.0", "downsample.1", "skip", POINT),
    ]
    for conv, bn, part, form in parts:
        kernel = f"{ours}/{block}/{part}/kernel"
        rules.append(Rule(f"{theirs}.{layer}.{conv}.weight", kernel, form))
        rules += batch_norm(f"{layer}.{bn}", f"{block}/norm_{part}")
    pool = f"{theirs}.attnpool"
    rules.append(
        Rule(f"{pool}.positional_embedding", f"{ours}/pool/position_embedding")
    )
    rules += dense(f"{pool}.q_proj", f"{ours}/pool/query")
    rules += fused([f"{pool}.k_proj", f"{pool}.v_proj"], f"{ours}/pool/key_value")
    return rules


def patches(theirs: str, ours: str) -> list[Rule]:
    """The convolution that embeds patches."""
    return [
        Rule(f"{theirs}.weight", f"{ours}/kernel", PATCHES),
        Rule(f"{theirs}.bias", f"{ours}/bias"),
    ]
