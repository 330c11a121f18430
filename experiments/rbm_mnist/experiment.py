"""An RBM of MNIST. Its bands were written before its runs."""

EXPERIMENT = dict(
    claim="Persistent contrastive divergence trains an RBM of 500 hidden units to a "
    "test log-probability that annealed importance sampling tells with an interval.",
    source="Salakhutdinov and Murray 2008",
    config="configs/boltzmann.py:mnist",
    arms=dict(rbm=dict()),
    overrides={"evals.test.betas": 5000},
    metrics=("test/log_partition",),
    checks=(
        dict(
            says="1,500 updates reach -140 to -100 nats",
            kind="mean",
            arms=("rbm",),
            metric="test/log_probability",
            band=(-140.0, -100.0),
        ),
        dict(
            says="10 of 100 annealed runs or more are effective",
            kind="mean",
            arms=("rbm",),
            metric="test/effective",
            band=(10.0, None),
        ),
    ),
    scales=dict(
        small=dict(
            overrides={"steps": 1500, "evals.test.every": 1500}, seeds=3, minutes=20
        ),
    ),
    before=("mmjax data build mnist --manual-dir MNIST",),
)
