"""Sound and lips in one code. Its bands were written before its runs."""

_NAMES = ("back", "lips", "lips_no_sound", "sound", "shallow")
_CONFIG = "configs/bimodal_autoencoder.py:avletters"

EXPERIMENT = dict(
    claim="A deep autoencoder of sound and lips makes codes by which letters are told "
    "better than by either modality.",
    source="Ngiam et al. 2011, tables 1 to 3",
    arms=dict(
        dbn=dict(config=f"{_CONFIG}_dbn"),
        both=dict(config=_CONFIG),
        unrolled=dict(config=_CONFIG, overrides={"graft.params": "{dbn}#params"}),
        **{name: dict(config=f"{_CONFIG}_{name}") for name in _NAMES},
    ),
    metrics=("test/all", "test/lips", "test/sound", "test/beside"),
    checks=(
        dict(
            says="both modalities tell 70 to 78 % of the letters",
            kind="mean",
            arms=("both",),
            metric="test/all",
            band=(0.70, 0.78),
        ),
        dict(
            says="codes of both are better than codes of sound, and these than of lips",
            kind="order",
            arms=("both",),
            metric=("test/all", "test/sound", "test/lips"),
        ),
        dict(
            says="the shallow network is 0 to 6 points below",
            kind="difference",
            arms=("both", "shallow"),
            metric="test/all",
            band=(0.0, 0.06),
        ),
    ),
    scales=dict(small=dict(seeds=3, minutes=40)),
)
