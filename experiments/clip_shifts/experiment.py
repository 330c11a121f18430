"""Shifts, calibration and the gap. No band was written before the first runs."""

EXPERIMENT = dict(
    claim="A shift costs a zero-shot classifier most where it takes away what its "
    "classes differ in: shapes lose least to blur and most to grey.",
    source="Radford et al. 2021, section 3.3; Guo et al. 2017; Liang et al. 2022",
    arms=dict(
        shapes=dict(config="configs/clip.py:shapes", suite="configs/suites.py:shapes"),
        flickr8k_cbow=dict(
            config="configs/clip.py:flickr8k_cbow", suite="configs/suites.py:bundle"
        ),
    ),
    metrics=("seen.calibration/ece", "seen.modality_gap/gap"),
    checks=(
        dict(
            says="blur at its strongest costs less than grey",
            kind="difference",
            arms=("shapes",),
            metric=("seen.robustness/blur_5", "seen.robustness/gray_5"),
        ),
        dict(
            says="one temperature removes half of the calibration error on photos",
            kind="ratio",
            arms=("flickr8k_cbow",),
            metric=("cifar10.calibration/ece_fitted", "cifar10.calibration/ece"),
            band=(None, 0.5),
        ),
        dict(
            says="images and captions of Flickr8k lie apart",
            kind="mean",
            arms=("flickr8k_cbow",),
            metric="flickr8k.modality_gap/gap",
        ),
    ),
    scales=dict(small=dict(seeds=3, minutes=120)),
)
