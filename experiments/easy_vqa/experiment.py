"""easy-VQA's own baseline. Its bands were written before its runs."""

_CONFIG = "configs/vqa.py:easy_vqa"

EXPERIMENT = dict(
    claim="Two convolutions, a bag of words and their product answer 93.8 % of "
    "easy-VQA's questions, and 99.5 % with a third convolution and longer training.",
    source="github.com/vzhou842/easy-VQA-keras",
    arms=dict(
        base=dict(config=_CONFIG),
        big=dict(config=f"{_CONFIG}_big"),
        question=dict(config=f"{_CONFIG}_question"),
        image=dict(config=f"{_CONFIG}_image"),
    ),
    metrics=("test/accuracy", "test/prior", "test/majority", "test/gain_image"),
    checks=(
        dict(
            says="base answers 88 to 97 %",
            kind="mean",
            arms=("base",),
            metric="test/accuracy",
            band=(0.88, 0.97),
        ),
        dict(
            says="big answers 99 % in the mean of the seeds",
            kind="mean",
            arms=("big",),
            metric="test/accuracy",
            band=(0.99, None),
        ),
        dict(
            says="questions alone are answered 58 to 68 %",
            kind="mean",
            arms=("question",),
            metric="test/accuracy",
            band=(0.58, 0.68),
        ),
        dict(
            says="images alone are within 3 points of the commonest answer",
            kind="difference",
            arms=("image",),
            metric=("test/accuracy", "test/majority"),
            band=(-0.03, 0.03),
        ),
        dict(
            says="blank images cost base 25 points",
            kind="mean",
            arms=("base",),
            metric="test/gain_image",
            band=(0.25, None),
        ),
    ),
    scales=dict(small=dict(seeds=3, minutes=60)),
)
