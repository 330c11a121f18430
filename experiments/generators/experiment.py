"""Prior, diffusion and DF-GAN. Its bands were written before its suites were run."""

_JUDGED = dict(suite="suite.py")

EXPERIMENT = dict(
    claim="DALL-E's prior draws what a caption says more often than DF-GAN does, and "
    "so does latent diffusion.",
    source="Ramesh et al. 2021, figure 7",
    arms=dict(
        vqvae=dict(config="configs/vqvae.py:shapes"),
        prior=dict(
            config="configs/prior.py:shapes",
            overrides={"graft.tokenizer": "{vqvae}"},
            **_JUDGED,
        ),
        kl=dict(config="configs/autoencoder_kl.py:shapes"),
        diffusion=dict(
            config="configs/diffusion.py:shapes",
            overrides={"graft.autoencoder": "{kl}"},
            **_JUDGED,
        ),
        pixels=dict(config="configs/diffusion.py:shapes_pixels", **_JUDGED),
        clip=dict(config="configs/clip.py:shapes_transformer"),
        df_gan=dict(
            config="configs/df_gan.py:shapes",
            overrides={"graft.text": "{clip}#params/text"},
            **_JUDGED,
        ),
    ),
    metrics=("shapes.first/oracle_new", "unseen.first/oracle_new"),
    checks=(
        dict(
            says="the prior is above DF-GAN by 20 points or more, first sample",
            kind="difference",
            arms=("prior", "df_gan"),
            metric="shapes.first/oracle_new",
            band=(0.20, None),
        ),
        dict(
            says="diffusion is above DF-GAN",
            kind="difference",
            arms=("diffusion", "df_gan"),
            metric="shapes.first/oracle_new",
        ),
        dict(
            says="DF-GAN draws less than 10 % of the captions",
            kind="mean",
            arms=("df_gan",),
            metric="shapes.first/oracle_new",
            band=(None, 0.10),
        ),
        dict(
            says="best of 8 adds 5 points or more to the prior",
            kind="difference",
            arms=("prior",),
            metric=("shapes.best/oracle_new_best8", "shapes.first/oracle_new"),
            band=(0.05, None),
        ),
        dict(
            says="and to diffusion",
            kind="difference",
            arms=("diffusion",),
            metric=("shapes.best/oracle_new_best8", "shapes.first/oracle_new"),
            band=(0.05, None),
        ),
    ),
    scales=dict(small=dict(seeds=3, minutes=600)),
    before=(
        "mmjax train --config configs/clip.py:shapes --workdir runs/judge_clip",
        "mmjax train --config configs/classifier.py:shapes --workdir runs/judge",
    ),
)
