"""Visual question answering: a bag of words, an LSTM or a transformer, and a CNN.

| preset | data | 1 CPU core | expect |
|---|---|---|---|
| easy_vqa (default) | easy-VQA, one image in five held out | minutes | below |
| easy_vqa_big | the same, a third convolution, 24 epochs | 10 minutes | 99.5 % |
| easy_vqa_question, easy_vqa_image | easy_vqa, trained on one of the two | minutes | |
| nlvr | NLVR's three boxes, dev trains, test tests | 1 minute | 60 % |
| tiny, tiny_attention | drawn shapes | seconds | nothing: they are for tests |

experiments/easy_vqa and experiments/nlvr have the figures.
"""

from ml_collections import ConfigDict

from mmjax_configs import common
from mmjax_configs.common import ROOT

SHAPES = ("circle", "rectangle", "triangle")
COLOURS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
EPOCH = 965  # steps of 32 rows over the training questions, rounded down


def _run(
    *,
    answers: int,
    size: int,
    context: int,
    steps: int,
    batch_size: int,
    background: float = 0.5,
) -> ConfigDict:
    """background: the value of a pixel, in [0, 1], that becomes 0.

    A product of both towers learned from the images of easy-VQA after four epochs with
    it, and not within six where the background was far from 0.
    """
    config = common.run(steps=steps, batch_size=batch_size)
    config.task = ConfigDict(
        dict(
            name="vqa",
            answers=answers,
            image_size=size,
            vocab_size=1024,
            context=context,
            image=dict(kind="conv_pool", widths=(8, 16)),
            question=dict(kind="cbow", width=32),
            join="product",
            width=32,
            mean=(background,) * 3,
            std=(0.5,) * 3,
        )
    )
    config.data.fields.image = common.images(size)
    config.data.fields.tokens = common.text(1024, context)
    config.optim.name, config.optim.weight_decay = "adam", 0.0
    config.optim.b2, config.optim.eps = 0.999, 1e-7
    return config


def _easy(part: str, **more: object) -> dict:
    """Questions about one part of the images: a hash of its number chooses it."""
    folder = f"{ROOT}/easy_vqa"
    return dict(
        kind="vqa",
        path=f"{folder}/easy_vqa-train-questions.jsonl.gz",
        images=f"npz:{folder}/easy_vqa-train-images.npz?keep=true",
        classes=f"{folder}/answers.txt",
        closed=True,
        part=part,
        group="/",
        **more,
    )


def easy_vqa() -> ConfigDict:
    """The baseline of its authors: 8 epochs, Adam at 5e-4."""
    config = _run(
        answers=13,
        size=64,
        context=16,
        steps=8 * EPOCH,
        batch_size=32,
        background=0.95,
    )
    config.data.train = _easy("train")
    config.optim.lr, config.optim.schedule, config.optim.warmup = 5e-4, "constant", 0
    config.evals.test = dict(
        type="vqa",
        every=config.steps,
        source=_easy("held_out"),
        train=_easy("train"),
        types=dict(yes_no=("yes", "no"), shape=SHAPES, colour=COLOURS),
        batch_size=256,
    )
    return config


def easy_vqa_big() -> ConfigDict:
    """A third convolution as in their `--big-model`, twice the width, 24 epochs.

    Half of the training images are mirrored: no question asks for a side.
    """
    config = easy_vqa()
    config.data.fields.image.flip = True
    config.task.image.widths = (8, 16, 32)
    config.task.width = 64
    config.steps = config.evals.test.every = 24 * EPOCH
    config.checkpoint.every = config.steps // 4
    config.optim.lr, config.optim.schedule, config.optim.warmup = 1e-3, "cosine", 500
    return config


def easy_vqa_question() -> ConfigDict:
    """Every image is blank, and so a small one: what the words alone tell."""
    config = easy_vqa()
    config.data.fields.image.update(size=8, of="none", optional=True)
    config.task.update(image_size=8, image=dict(kind="conv_pool", widths=(8,)))
    config.steps = config.evals.test.every = 2 * EPOCH
    return config


def easy_vqa_image() -> ConfigDict:
    """Every question is blank."""
    config = easy_vqa()
    config.steps = config.evals.test.every = 2 * EPOCH
    config.data.fields.tokens.update(of="none", optional=True, tokenizer="bytes")
    del config.data.fields.tokens["vocab_size"]
    return config


def _nlvr(split: str) -> dict:
    """A sentence and its three boxes; the set's other order of them is the same row."""
    file = f"{ROOT}/nlvr/nlvr-{split}"
    return dict(
        kind="vqa",
        path=f"{file}.jsonl.gz",
        images=dict(
            kind="frames",
            source=f"npz:{file}-images.npz?key=example&where=perm:0",
            width=100,
            gap=50,
            keep=True,
        ),
        question="sentence",
        answer="label",
        image="none",
        key="identifier",
    )


def nlvr() -> ConfigDict:
    """One CNN over the boxes, whose order has no part in the answer."""
    config = _run(
        answers=2, size=32, context=40, steps=300, batch_size=64, background=0.83
    )
    config.data.fields.image = dict(
        common.images(32), kind="video", of="frames", length=3
    )
    config.task.image.widths = (16, 32, 32)
    config.task.width = config.task.question.width = 64
    config.data.train = _nlvr("dev")
    config.optim.lr, config.optim.weight_decay = 1e-3, 0.0
    config.evals.test = dict(
        type="vqa",
        every=config.steps,
        source=_nlvr("test"),
        train=_nlvr("dev"),
        words=2,
        batch_size=256,
    )
    return config


def tiny() -> ConfigDict:
    """Seconds on a CPU; every part of a real run, none of its size."""
    config = _run(answers=64, size=16, context=16, steps=4, batch_size=16)
    config.task.update(image=dict(kind="conv_pool", widths=(4,)), width=8)
    config.task.question.width = 8
    config.data.fields.tokens.vocab_size = config.task.vocab_size = 530
    config.log_every = 1
    config.data.train = "shapes:train?size=16&count=256&objects=1"
    config.checkpoint.every = 2
    config.evals.val = dict(
        type="vqa", every=4, source="shapes:val?size=16&objects=1&count=32"
    )
    return config


def tiny_attention() -> ConfigDict:
    """An LSTM attends to the places of the image."""
    config = tiny()
    config.task.join = "attention"
    config.task.question = dict(kind="lstm", width=8)
    return config


PRESETS = {
    f.__name__: f
    for f in (
        easy_vqa,
        easy_vqa_big,
        easy_vqa_question,
        easy_vqa_image,
        nlvr,
        tiny,
        tiny_attention,
    )
}
get_config = common.chooser(PRESETS)
