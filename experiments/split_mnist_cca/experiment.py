"""Halves of MNIST digits. Its bands were written before its runs."""

_DEEP = dict(suite="suite.py")

EXPERIMENT = dict(
    claim="Deep CCA finds more correlation between the halves of a digit than linear "
    "CCA does.",
    source="Andrew et al. 2013, table 1",
    arms=dict(
        batches=dict(config="configs/cca.py:split_mnist_batches", **_DEEP),
        pretrain=dict(config="configs/cca.py:split_mnist_pretrain"),
        full_batch=dict(config="configs/cca.py:split_mnist", **_DEEP),
    ),
    checks=(
        dict(
            says="linear CCA finds 28.0 to 28.7 of 50",
            kind="mean",
            arms=("batches",),
            metric="split_mnist.linear/correlation",
            band=(28.0, 28.7),
        ),
        dict(
            says="kernel CCA finds at least 33",
            kind="mean",
            arms=("batches",),
            metric="split_mnist.nystroem/correlation",
            band=(33.0, None),
        ),
        dict(
            says="deep CCA with one hidden layer finds at least 39.4",
            kind="mean",
            arms=("batches",),
            metric="split_mnist.deep/correlation",
            band=(39.4, None),
        ),
    ),
    scales=dict(
        small=dict(seeds=3, minutes=40, only=("batches",)),
        paper=dict(seeds=3, minutes=6000),
    ),
)
