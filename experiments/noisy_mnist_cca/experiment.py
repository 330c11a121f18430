"""Classes beside a noisy view. Its bands were written before its runs."""

_DEEP = dict(suite="suite.py")

EXPERIMENT = dict(
    claim="Deep CCA with a view that shares the class alone makes features whose "
    "linear SVM errs far less than that of the inputs or of linear CCA.",
    source="Wang et al. 2015, table 1",
    arms=dict(
        short=dict(config="configs/cca.py:noisy_mnist_relu", **_DEEP),
        dcca=dict(config="configs/cca.py:noisy_mnist", **_DEEP),
        dccae=dict(config="configs/cca.py:noisy_mnist_ae", **_DEEP),
    ),
    checks=(
        dict(
            says="the SVM of the inputs errs on 12.1 to 14.1 %",
            kind="mean",
            arms=("short",),
            metric="noisy_mnist.raw/svm_error",
            band=(0.121, 0.141),
        ),
        dict(
            says="that of linear CCA on 18.1 to 21.1 %",
            kind="mean",
            arms=("short",),
            metric="noisy_mnist.linear/svm_error",
            band=(0.181, 0.211),
        ),
        dict(
            says="that of DCCA on 3.2 % at most",
            kind="mean",
            arms=("dcca",),
            metric="noisy_mnist.deep/svm_error",
            band=(None, 0.032),
        ),
        dict(
            says="that of DCCAE on 2.6 % at most",
            kind="mean",
            arms=("dccae",),
            metric="noisy_mnist.deep/svm_error",
            band=(None, 0.026),
        ),
    ),
    scales=dict(
        small=dict(seeds=3, minutes=60, only=("short",)),
        paper=dict(seeds=3, minutes=6000),
    ),
)
