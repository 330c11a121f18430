"""The sets by which fine-tuning on GTSRB is judged for what it forgot."""

from ml_collections import ConfigDict

from mmjax_configs import suites


def get_config(arg: str = "") -> ConfigDict:
    """The suite `bundle` less GTSRB; `tiny` is the suite of tests."""
    if arg == "tiny":
        return suites.tiny()
    config = suites.bundle()
    config.only = ("cifar10", "clothing", "tiny_imagenet", "flickr8k")
    config.limit = 1000
    return config
