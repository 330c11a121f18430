"""Retrieval by fragments: the same ranks as scores of all pairs, one by one."""

import jax
import numpy as np
import pytest

from mmjax import evaluators
from mmjax.data import fields as fields_lib
from mmjax.data.sources import open_source
from mmjax.train import config as config_lib
from mmjax.train import evaluate, setup

SOURCE = "shapes:val?size=16&count=7&objects=2"


def test_ranks_are_those_of_single_pairs():
    config = config_lib.load("fragments:tiny", [])
    config.batch_size = 4
    parts = setup.build(config)
    variables = parts.task.init(jax.random.key(0), parts.example())
    env = evaluate.env(parts)
    cfg = {"type": "fragments", "source": SOURCE, "resamples": 20}
    result = evaluators.build("x", cfg, env, "config.evals.x").run(variables)
    source, scores = open_source(SOURCE), []
    listed = [source[i]["text"] for i in range(7)]
    captions = [text for texts in listed for text in texts]
    owner = np.repeat(range(7), [len(texts) for texts in listed])
    text = fields_lib.encode(parts.fields, "sentence", captions)
    for i in range(7):
        boxes = source[i]["boxes"]
        v = parts.task.model.apply(
            {"params": variables.params}, boxes[None], method="regions"
        )[0]
        s = parts.task.model.apply(
            {"params": variables.params}, text["sentence"], method="fragments"
        )
        dots = np.maximum(np.einsum("nd,mkd->mnk", v, s), 0).mean(1)
        total = (dots * text["sentence_mask"]).sum(1)
        scores.append(total / (text["sentence_mask"].sum(1) + 5.0))
    scores = np.stack(scores)
    for i in range(7):
        best, others = scores[i, owner == i].max(), scores[i, owner != i]
        assert result.arrays["i2t_rank"][i] == (others >= best - 1e-6).sum()
    hits = [
        (scores[:, m] > scores[owner[m], m] + 1e-6).sum() < 1 for m in range(len(owner))
    ]
    assert result.values["t2i_r1"] <= np.mean(hits) + 1e-9
    assert result.values["i2t_r10"] == pytest.approx(
        (result.arrays["i2t_rank"] < 10).mean()
    )
