"""Deep CCA: two views of a record, coded so that the codes correlate.

| preset | data | cost on one core | expect |
|---|---|---|---|
| split_mnist (default) | halves of MNIST digits | hours | 39.7 of 50 (paper) |
| split_mnist_batches | the same, in large minibatches | 6 minutes | see experiments |
| split_mnist_pretrain | denoising autoencoders for `split_mnist` | an hour | |
| noisy_mnist | rotated digits, noisy digits | hours | SVM error 2.9 % (paper) |
| noisy_mnist_relu | the same, rectifiers | 6 minutes | see experiments |
| noisy_mnist_ae | the same, DCCAE | hours | 2.2 % (paper) |
| mfeat | three kinds of features of digits | seconds | 7.5 of 10, linear 6.5 |
| tiny | halves of shapes | seconds | nothing: it is for tests |

Data: the four files of MNIST in MMJAX_DATA/tfds_manual/mnist.
"""

from ml_collections import ConfigDict

from mmjax_configs import common
from mmjax_configs.common import ROOT

_MNIST = f"mnist:{ROOT}/tfds_manual/mnist"


def _run(*, steps: int, batch_size: int, **task: object) -> ConfigDict:
    config = common.run(steps=steps, batch_size=batch_size)
    config.task = ConfigDict(dict(name="cca", **task))
    config.optim.weight_decay = 0.0
    del config.data.fields["image"]
    return config


def _halves(config: ConfigDict, width: int) -> ConfigDict:
    """Left and right half of the image are the views."""
    for view, part in (("view_a", "left"), ("view_b", "right")):
        config.data.fields[view] = dict(kind="pixels", part=part, width=width)
    return config


def _judged(config: ConfigDict, test: str, **more: object) -> ConfigDict:
    config.evals.test = dict(
        type="cca", every=config.steps, source=test, train=config.data.train, **more
    )
    return config


def split_mnist() -> ConfigDict:
    """Andrew et al. 2013, table 1, DCCA-50-2: full batches, L-BFGS."""
    config = _run(
        steps=100,
        batch_size=54000,
        width=50,
        encoder=dict(kind="mlp", act="cube_root", out_act="cube_root"),
        encoders=dict(view_a=dict(hidden=(2038,)), view_b=dict(hidden=(1608,))),
        reg=1e-4,
    )
    config.data.train = f"{_MNIST}?limit=54000"
    config.optim.update(name="lbfgs", lr=1.0, schedule="constant", warmup=0)
    config.log_every = 1
    config.checkpoint.every = 10
    test = f"{_MNIST}?split=test"
    return _judged(_halves(config, 392), test, components=50, repeats=2)


def split_mnist_batches() -> ConfigDict:
    """The same networks by Adam on large minibatches (Wang et al. 2015)."""
    config = split_mnist()
    config.steps, config.batch_size = 800, 1500
    config.optim.update(name="adam", lr=1e-3, schedule="cosine", warmup=50)
    config.log_every = 20
    config.checkpoint.every = 200
    config.evals.test.every = config.steps
    return config


def split_mnist_pretrain() -> ConfigDict:
    """Layers of `split_mnist` as denoising autoencoders; then --config.graft."""
    config = split_mnist_batches()
    config.task.objective, config.task.noise = "denoise", 0.3
    return config


def noisy_mnist() -> ConfigDict:
    """Wang et al. 2015, table 1: DCCA with 3 x 1024 sigmoids and 10 columns."""
    config = _run(
        steps=3100,
        batch_size=800,
        width=10,
        encoder=dict(kind="mlp", hidden=(1024, 1024, 1024), act="sigmoid"),
        reg=1e-4,
    )
    for view, value in (("view_a", "rotated"), ("view_b", "noisy")):
        config.data.fields[view] = dict(kind="pixels", of=value, width=784)
    config.data.train = f"{_MNIST}?noisy=true&limit=50000"
    config.optim.update(name="adamw", lr=1e-3, weight_decay=1e-4)
    test = f"{_MNIST}?split=test&noisy=true"
    judged = dict(components=10, svm=(0.01, 0.1, 1.0, 10.0), clusters="spectral")
    val = f"{_MNIST}?noisy=true&skip=50000"
    return _judged(config, test, val=val, repeats=2, **judged)


def noisy_mnist_relu() -> ConfigDict:
    """The same with rectifiers, which learn in minutes without pretraining."""
    config = noisy_mnist()
    config.steps, config.task.encoder.act = 500, "relu"
    config.optim.warmup = 25
    config.checkpoint.every = 125
    config.evals.test.every = config.steps
    return config


def noisy_mnist_ae() -> ConfigDict:
    """The same with reconstruction, DCCAE."""
    config = noisy_mnist()
    config.task.objective, config.task.reconstruction = "dccae", 1e-3
    return config


def mfeat() -> ConfigDict:
    """Three kinds of features of 1,500 written digits: deep generalised CCA."""
    views = ("fou", "kar", "zer")
    config = _run(
        steps=300,
        batch_size=400,
        width=10,
        views=views,
        encoder=dict(kind="mlp", hidden=(128,), act="relu"),
        reg=1e-3,
    )
    for view, width in zip(views, (76, 64, 47), strict=True):
        config.data.fields[view] = dict(
            kind="vector", width=width, normalize="standard"
        )
    data = f"npz:{ROOT}/cca/uci_mfeat-train1500.npz?part="
    config.data.train = f"{data}train"
    config.optim.update(lr=1e-3, weight_decay=1e-2)
    judged = dict(components=10, svm=(1.0,), clusters="spectral")
    _judged(config, f"{data}held_out", **judged)
    config.evals.linear = dict(config.evals.test, features="views", reg=(1e-2,))
    return config


def tiny() -> ConfigDict:
    """Seconds on a CPU; every part of a real run, none of its size."""
    config = _run(
        steps=4,
        batch_size=16,
        width=3,
        encoder=dict(kind="mlp", hidden=(8,), act="cube_root"),
        objective="dccae",
        reconstruction=0.1,
        reg=0.1,
    )
    config.log_every, config.checkpoint.every = 1, 2
    one = "size=16&objects=1"
    config.data.train = f"shapes:train?{one}&count=64"
    test = f"shapes:val?{one}&count=32"
    judged = dict(components=2, repeats=2, svm=(1.0,), clusters="kmeans", resamples=20)
    return _judged(_halves(config, 128), test, **judged)


PRESETS = {
    f.__name__: f
    for f in (
        split_mnist,
        split_mnist_batches,
        split_mnist_pretrain,
        noisy_mnist,
        noisy_mnist_relu,
        noisy_mnist_ae,
        mfeat,
        tiny,
    )
}
get_config = common.chooser(PRESETS)
