"""Co-training of two kinds of features of digits, as a suite.

    mmjax eval experiments/co_training/suite.py WORKDIR

WORKDIR is a run of cca:mfeat, whose fields it takes; the network is not used.
"""

from ml_collections import ConfigDict

from mmjax_configs import suites

_UCI = f"npz:{suites.ROOT}/cca/uci_mfeat-train1500.npz?part="
_SHOWN = ("co_both", "both", "gain", "co_gain")


def get_config(arg: str = "") -> ConfigDict:
    """The suite; it has no presets."""
    parts = dict(source=f"{_UCI}held_out", train=f"{_UCI}train")
    common = dict(type="co_training", draws=20, show=_SHOWN)
    names = ("fou", "kar")
    return suites.suite(
        dict(mfeat=parts),
        dict(
            labels_20=dict(common, names=names, labels=20),
            labels_50=dict(common, names=names, labels=50),
            labels_100=dict(common, names=names, labels=100),
            fou_zer_50=dict(common, names=("fou", "zer"), labels=50),
        ),
    )
