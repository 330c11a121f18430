"""Bits against real numbers. Its bands were written before its runs."""

_FEATURES = (
    "mmjax convert efficientnet_lite0.pth runs/lite0",
    'mmjax embed runs/lite0 --records "webdataset:$MMJAX_DATA/emoji/noto128-shared.tar'
    '?text=caption" --out runs/features/emoji.npz',
)

EXPERIMENT = dict(
    claim="Codes of 16 to 64 bits keep most of what real-valued search finds, and "
    "those that learn from classes find classes better than those that do not.",
    source="Jiang and Li 2017, table 3, in its order",
    config="configs/hashing.py:emoji",
    arms={f"bits{n}": dict(overrides={"task.bits": n}) for n in (16, 32, 64)},
    overrides={"evals.closed.every": 600},
    metrics=("test/codes_16_a2b_map", "test/codes_32_a2b_map"),
    checks=(
        dict(
            says="CCA-ITQ is 0.03 to 0.12 above chance",
            kind="difference",
            arms=("bits64",),
            metric=("closed/cca_itq_64_a2b_map", "closed/chance"),
            band=(0.03, 0.12),
        ),
        dict(
            says="SCM is above CCA-ITQ by 0.05 or more",
            kind="difference",
            arms=("bits64",),
            metric=("closed/scm_64_a2b_map", "closed/cca_itq_64_a2b_map"),
            band=(0.05, None),
        ),
        dict(
            says="DCMH is above SCM",
            kind="difference",
            arms=("bits64",),
            metric=("test/codes_64_a2b_map", "closed/scm_64_a2b_map"),
        ),
        dict(
            says="64 bits of DCMH are no worse than 16",
            kind="difference",
            arms=("bits64", "bits16"),
            metric=("test/codes_64_a2b_map", "test/codes_16_a2b_map"),
        ),
    ),
    scales=dict(small=dict(seeds=3, minutes=10)),
    before=_FEATURES,
)
