"""Suites of evaluations: `mmjax eval configs/suites.py:NAME WORKDIR`.

| suite | data | cost of a small tower on 2 CPU cores |
|---|---|---|
| tiny (default) | shapes | seconds: it is for tests |
| shapes | shapes, seen and unseen pairs | 3 minutes |
| bundle | parts of the five sets it names | 6 minutes, and 20 for its probes |

A data set is its parts and its names (mmjax.suite.cells.Dataset), a protocol an
evaluator and its keys (mmjax.suite.cells.Protocol).
"""

from ml_collections import ConfigDict, config_dict

from mmjax_configs import common
from mmjax_configs.common import ROOT


def suite(datasets: dict, protocols: dict) -> ConfigDict:
    """The config of a suite."""
    config = ConfigDict()
    config.limit = config_dict.placeholder(int)  # of every data set, at most
    config.only = ()  # these data sets, not all
    config.datasets = ConfigDict(datasets)
    config.protocols = ConfigDict(protocols)
    return config


def protocols() -> dict:
    """The shipped protocols; where no type is given, the name is the evaluator's."""
    return dict(
        zero_shot=dict(),
        bare_name=dict(type="zero_shot", templates="plain"),
        robustness=dict(show=("shifted", "kept")),
        calibration=dict(needs=("val",), show=("ece", "ece_fitted")),
        modality_gap=dict(on="captions"),
        retrieval=dict(on="captions", show=("i2t_r1", "t2i_r1")),
        linear_probe=dict(needs=("train", "val")),
        few_shot=dict(needs=("train", "val"), show=("shot_16", "zero_shot_worth")),
    )


_LABELLED = ("zero_shot", "bare_name", "robustness", "calibration", "modality_gap")


def _images(path: str, **parts: str) -> dict:
    """A labelled set from npz files; its captions are its names in a sentence."""
    specs = {k: f"npz:{ROOT}/{path}{v}" for k, v in parts.items()}
    sentence = "template=a photo of a {}."
    joint = "&" if "?" in specs["source"] else "?"
    specs["captions"] = f"{specs['source']}{joint}{sentence}"
    probed = ("linear_probe", "few_shot") if "train" in parts else ()
    return specs | {"protocols": (*_LABELLED, *probed)}


def tiny() -> ConfigDict:
    """Every kind of protocol but few_shot, on a few images."""
    one = "size=16&objects=1"
    pairs = dict(
        source=f"shapes:val?{one}&count=24",
        train=f"shapes:train?{one}&count=160",
        val=f"shapes:val?{one}&count=24&seed=7",
        captions="shapes:val?size=16&objects=2&count=24",
        templates="shapes",
    )
    chosen = protocols()
    chosen["robustness"] |= dict(shifts=("noise", "gray"), severities=(1, 5))
    chosen["linear_probe"] |= dict(l2=1.0, iterations=20)
    del chosen["few_shot"]  # there are pairs that no training scene shows
    for protocol in chosen.values():
        protocol["resamples"] = 50
    return suite(dict(shapes=pairs), chosen)


def shapes() -> ConfigDict:
    """Single objects, of pairs of colour and shape seen in training and unseen."""
    one = "size=32&objects=1"
    # other scenes than those judged and than those trained on
    shared = dict(val=f"shapes:val?{one}&count=1000&seed=7", templates="shapes")
    shared |= dict(captions="shapes:val?size=32&objects=2&count=1000")
    return suite(
        dict(
            seen=dict(
                shared,
                source=f"shapes:val?{one}&count=1000",
                protocols=(*_LABELLED, "retrieval"),
            ),
            unseen=dict(
                shared,
                source=f"shapes:unseen?{one}&count=1000",
                protocols=_LABELLED[:-1],
            ),
        ),
        {k: v for k, v in protocols().items() if k in (*_LABELLED, "retrieval")},
    )


def bundle() -> ConfigDict:
    """Small parts of public sets: near the published numbers, not in their place."""
    cifar10 = _images(
        "cifar10/cifar10-",
        source="test-2k.npz",
        train="train-6k.npz?part=train",
        val="train-6k.npz?part=held_out",
    )
    # Frames of one track stay together; the set's own test images are not at hand, and
    # what is left makes one part that a temperature can be fitted to, not two.
    gtsrb = _images(
        "gtsrb/gtsrb-train.npz?group=_&part=",
        source="held_out",
        val="train",
    )
    clothing = _images(
        "clothing/clothing10-",
        source="validation-128.npz",
        train="train-128.npz?part=train",
        val="train-128.npz?part=held_out",
    )
    words = _images(
        "tiny_imagenet/tin100-",
        source="val-2k.npz",
        train="train-3k.npz?part=train",
        val="train-3k.npz?part=held_out",
    )
    dev = f"webdataset:{ROOT}/flickr8k/flickr8k-dev-128-00000.tar"
    photos = dict(
        source=dev,
        captions=dev,
        protocols=("retrieval", "modality_gap"),
    )
    return suite(
        dict(
            cifar10=dict(cifar10, templates="cifar10"),
            gtsrb=dict(gtsrb, templates="gtsrb"),
            clothing=dict(clothing, templates=("a photo of a {}.", "a {}.", "my {}.")),
            tiny_imagenet=dict(words, templates="clip80"),
            flickr8k=photos,
        ),
        protocols(),
    )


PRESETS = {f.__name__: f for f in (tiny, shapes, bundle)}
get_config = common.chooser(PRESETS)
