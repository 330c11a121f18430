"""The temperature of the relaxation and the KL weight of a dVAE.

The bands were written before any of these runs.
"""

EXPERIMENT = dict(
    claim="Annealing the relaxation to 1/16 closes the gap to hard codes, and a KL "
    "weight of 6.6 puts more codes to use.",
    source="Ramesh et al. 2021, section 2.1 and appendix A.2",
    config="configs/dvae.py:shapes",
    arms=dict(
        paper=dict(),
        hot=dict(overrides={"task.temperature": 1.0}),
        kl_1=dict(overrides={"task.kl_weight": 1.0}),
    ),
    metrics=("val/psnr", "val/used", "val/perplexity"),
    checks=(
        dict(
            says="annealed to 1/16, hard codes rebuild images 1 dB better than at 1",
            kind="difference",
            arms=("paper", "hot"),
            metric="val/psnr",
            band=(1.0, None),
        ),
        dict(
            says="a KL weight of 6.6 uses more codes than one of 1",
            kind="difference",
            arms=("paper", "kl_1"),
            metric="val/used",
        ),
        dict(
            says="and rebuilds images no worse",
            kind="difference",
            arms=("paper", "kl_1"),
            metric="val/psnr",
        ),
    ),
    scales=dict(
        tiny=dict(
            overrides={"steps": 4, "batch_size": 8, "evals.val.limit": 16},
            seeds=2,
            minutes=3,
        ),
        small=dict(
            overrides={
                "steps": 800,
                "task.kl_steps": 400,
                "task.temperature_steps": 800,
            },
            seeds=3,
            minutes=35,
        ),
    ),
)
