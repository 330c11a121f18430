"""Audio against lips. Its bands were written before its runs."""

EXPERIMENT = dict(
    claim="Two towers find which frame of the lips belongs to a frame of sound better "
    "than the diagonal, where they learn from the clock.",
    source="",
    arms=dict(
        clock=dict(config="configs/alignment.py:avletters"),
        soft_dtw=dict(config="configs/alignment.py:avletters_soft_dtw"),
        tcc=dict(config="configs/alignment.py:avletters_tcc"),
    ),
    metrics=("held_out/frame_error", "held_out/nearest_error"),
    checks=(
        dict(
            says="towers trained on the clock err by 1.3 frames or less",
            kind="mean",
            arms=("clock",),
            metric="held_out/frame_error",
            band=(None, 1.3),
        ),
        dict(
            says="the diagonal errs more than towers trained on the clock",
            kind="difference",
            arms=("clock",),
            metric=("held_out/uniform_error", "held_out/frame_error"),
        ),
        dict(
            says="cycle consistency is at or above the diagonal",
            kind="difference",
            arms=("tcc",),
            metric=("held_out/frame_error", "held_out/uniform_error"),
        ),
    ),
    scales=dict(small=dict(seeds=3, minutes=40)),
)
