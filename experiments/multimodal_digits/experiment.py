"""A DBM of images and sound. Its bands were written before its runs."""

EXPERIMENT = dict(
    claim="A probe on the joint layer of a multimodal deep Boltzmann machine is best "
    "with both modalities, and better with the missing one inferred than with zeros.",
    source="Srivastava and Salakhutdinov 2012, section 4",
    config="configs/boltzmann.py:spoken_digits",
    arms=dict(dbm=dict()),
    metrics=("missing/inferred", "missing/zeros"),
    checks=(
        dict(
            says="both modalities reach a mean average precision above 0.97",
            kind="mean",
            arms=("dbm",),
            metric="missing/whole",
            band=(0.97, None),
        ),
        dict(
            says="the sound inferred is above zeros in its place",
            kind="mean",
            arms=("dbm",),
            metric="missing/gain",
        ),
        dict(
            says="both are above the image with the sound inferred",
            kind="difference",
            arms=("dbm",),
            metric=("missing/whole", "missing/inferred"),
        ),
    ),
    scales=dict(small=dict(seeds=3, minutes=35)),
)
