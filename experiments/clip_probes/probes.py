"""Zero-shot, linear probe and few shots on four labelled sets, as a suite.

    mmjax eval experiments/clip_probes/probes.py WORKDIR

The L2 weight of every probe is chosen on a fifth of each class of train. GTSRB's test
is a fifth of its tracks, and its rarest class has too few images for 8 or 16 shots.
"""

from ml_collections import ConfigDict

from mmjax_configs import suites


def _split(train: str, test: str, templates: str, **more) -> dict:
    root = f"npz:{suites.ROOT}"
    parts = dict(source=f"{root}/{test}", train=f"{root}/{train}", val=0.2)
    return dict(parts, templates=templates, **more)


def get_config(arg: str = "") -> ConfigDict:
    """The suite; it has no presets."""
    gtsrb = "gtsrb/gtsrb-train.npz?group=_&part="
    few = dict(repeats=3, show=("shot_1", "zero_shot_worth"))
    return suites.suite(
        dict(
            cifar10=_split(
                "cifar10/cifar10-train-6k.npz", "cifar10/cifar10-test-2k.npz", "cifar10"
            ),
            clothing=_split(
                "clothing/clothing10-train-128.npz",
                "clothing/clothing10-validation-128.npz",
                "photo",
            ),
            tiny_imagenet=_split(
                "tiny_imagenet/tin100-train-3k.npz",
                "tiny_imagenet/tin100-val-2k.npz",
                "clip7",
            ),
            gtsrb=_split(f"{gtsrb}train", f"{gtsrb}held_out", "gtsrb", shots=(1, 2, 4)),
        ),
        dict(zero_shot=dict(), linear_probe=dict(), few_shot=few),
    )
