"""Classes of noisy MNIST's first view: raw, linear and kernel CCA, deep, as a suite.

    mmjax eval experiments/noisy_mnist_cca/suite.py WORKDIR

50,000 digits to fit on, 10,000 to choose C of the SVM by, and MNIST's own test.
"""

from ml_collections import ConfigDict

from mmjax_configs import suites

_MNIST = f"mnist:{suites.ROOT}/tfds_manual/mnist"
_JUDGED = dict(type="cca", svm=(0.01, 0.1, 1.0, 10.0), clusters="spectral")
_JUDGED |= dict(repeats=0, show=("svm_error", "clustering", "nmi"))
_INPUTS = dict(_JUDGED, features="views")


def get_config(arg: str = "") -> ConfigDict:
    """The suite; it has no presets."""
    parts = dict(
        source=f"{_MNIST}?split=test&noisy=true",
        train=f"{_MNIST}?noisy=true&limit=50000",
        val=f"{_MNIST}?noisy=true&skip=50000",
    )
    return suites.suite(
        dict(noisy_mnist=parts),
        dict(
            raw=dict(_INPUTS, project=False, svm=(0.01,), svm_pairs=True),
            linear=dict(_INPUTS, components=50, reg=(0.1,)),
            nystroem=dict(
                _INPUTS,
                components=10,
                kernel="nystroem",
                kernel_width=1500,
                kernel_scales=(6.0, 12.0),
                reg=(1e-5,),
            ),
            deep=dict(_JUDGED, components=10),
        ),
    )
