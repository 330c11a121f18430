"""Zero-shot beside probes. Its bands were written before its runs."""

_SETS = ("cifar10", "clothing", "tiny_imagenet", "gtsrb")
_TOWERS = ("flickr8k", "emoji")

EXPERIMENT = dict(
    claim="On towers of few images a linear probe is above zero-shot on every set.",
    source="Radford et al. 2021, figures 5 to 7",
    arms={
        name: dict(config=f"configs/clip.py:{name}", suite="probes.py")
        for name in _TOWERS
    },
    checks=tuple(
        dict(
            says=f"{tower}: the probe is above zero-shot on {name}",
            kind="difference",
            arms=(tower,),
            metric=(f"{name}.linear_probe/top1", f"{name}.zero_shot/top1"),
        )
        for tower in _TOWERS
        for name in _SETS
    ),
    scales=dict(small=dict(seeds=3, minutes=180)),
)
