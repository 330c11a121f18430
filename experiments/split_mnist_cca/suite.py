"""Linear, kernel and deep CCA of halves of MNIST digits, as a suite.

    mmjax eval experiments/split_mnist_cca/suite.py WORKDIR

The fits are on 54,000 training digits, and the test is MNIST's own.
"""

from ml_collections import ConfigDict

from mmjax_configs import suites

_MNIST = f"mnist:{suites.ROOT}/tfds_manual/mnist"
_CCA = dict(type="cca", components=50, show=("correlation", "null"))
_KERNEL = dict(_CCA, features="views", kernel_width=1500, repeats=1)


def get_config(arg: str = "") -> ConfigDict:
    """The suite; it has no presets."""
    parts = dict(source=f"{_MNIST}?split=test", train=f"{_MNIST}?limit=54000")
    return suites.suite(
        dict(split_mnist=parts),
        dict(
            linear=dict(_CCA, features="views", reg=(1e-8,)),
            fourier=dict(_KERNEL, kernel="fourier", kernel_scales=(6.0,), reg=(1e-6,)),
            nystroem=dict(
                _KERNEL, kernel="nystroem", kernel_scales=(6.0,), reg=(1e-6,)
            ),
            deep=dict(_CCA),
        ),
    )
