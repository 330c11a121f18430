"""One body: evaluators of other packages, and what the real pipeline leaves out."""

import dataclasses
import sys

import batch_fields
import numpy as np
import pytest

from mmjax import evaluators
from mmjax.data.fields import image
from mmjax.data.records import BrokenRecord
from mmjax.data.sources import open_source
from mmjax.errors import UserError
from mmjax.evaluators import base
from mmjax.evaluators.common import forward
from mmjax.suite import cells

OUTSIDE = """
from mmjax.evaluators import base
from mmjax.evaluators.common import forward

Config = base.EvalConfig


class Evaluator(base.Evaluator):
    calls = {"embed_image": forward.IMAGE}

    def run(self, variables):
        rows = self.collect(variables)
        rows_n = rows.arrays["embed_image"].mean(1)
        values = self.intervals(["mean"], lambda w: [w @ rows_n / w.sum()], len(rows_n))
        return base.Result(values, self.card(rows.counts, {"mean": "of all"}))
"""


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """An importable package with one evaluator, that mmjax knows nothing of."""
    (tmp_path / "their_lab").mkdir()
    (tmp_path / "their_lab" / "__init__.py").write_text("")
    (tmp_path / "their_lab" / "average.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "their_lab.average"
    for name in ("their_lab", "their_lab.average"):
        sys.modules.pop(name, None)


def test_an_evaluator_of_another_package(lab, make_env, make_source):
    source = make_source(np.arange(60).reshape(5, 12), broken=(1,))
    variables = {"image": np.eye(12, dtype=np.float32)}
    evaluator = evaluators.build("x", {"type": lab, "source": source}, make_env())
    evaluator.check(variables)
    result = evaluator.run(variables)
    want = np.delete(source.vectors, 1, axis=0).mean()
    assert result.values["mean"] == pytest.approx(want)
    assert result.values["mean_lo"] <= want <= result.values["mean_hi"]
    assert result.card["evaluator"] == lab
    assert result.card["counts"] == {"examples": 4, "broken": 1}
    assert result.card["source"]["fingerprint_covers"] == "every value"
    (cell,) = cells.cells({"datasets": {"d": {"source": "s"}}, "protocols": {lab: {}}})
    assert cell.cfg == {"type": lab, "source": "s"}


class SomeBroken:
    """A drawn source whose records 1 and 2 cannot be read."""

    def __init__(self):
        self.inner = open_source("shapes:val?size=16&count=10&objects=1")
        self.name, self.class_names = "some broken", self.inner.class_names

    def __len__(self):
        return len(self.inner)

    def __getitem__(self, i):
        if i in (1, 2):
            raise BrokenRecord(str(i), "on purpose")
        return self.inner[i]

    def texts(self):
        return self.inner.texts()


def brightness(variables, batch):
    return batch["image"].astype("float32").mean((1, 2))


class Bright(base.Evaluator):
    calls = {"brightness": forward.IMAGE}


def collect(make_env, source, *, class_names=None, **more):
    env = dataclasses.replace(
        make_env(brightness=brightness),
        image_cfg=image.Field(size=16),
        eval_batches=batch_fields.batches(None, image.Field(size=16)),
    )
    evaluator = Bright({"source": source}, env, "here")
    if class_names is not None:
        evaluator.labelled, evaluator.class_names = True, class_names
    return evaluator.collect({}, **more)


def test_broken_records_of_the_pipeline_are_counted(make_env):
    rows = collect(make_env, SomeBroken())
    assert rows.counts == {"examples": 8, "broken": 2} and rows.batches == 3
    assert rows.arrays["index"].tolist() == [0, 3, 4, 5, 6, 7, 8, 9]
    assert rows.arrays["brightness"].shape == (8, 3)
    full = collect(make_env, SomeBroken(), full=True)
    assert full.arrays["index"].tolist() == [4, 5, 6, 7] and full.batches == 1


def test_rows_need_not_be_held(make_env):
    whole = collect(make_env, SomeBroken())

    def keep(outputs, batch, valid_b):
        return {"red": np.asarray(outputs["brightness"])[valid_b, 0]}

    rows = collect(make_env, SomeBroken(), keep=keep)
    assert set(rows.arrays) == {"index", "label", "red"}
    np.testing.assert_array_equal(rows.arrays["red"], whole.arrays["brightness"][:, 0])


def test_labels_and_images_that_are_missing(make_env, make_source):
    with pytest.raises(UserError, match="here: record .* but there are 1 class names"):
        collect(make_env, SomeBroken(), class_names=["red"])
    batch = {"image_tokens": np.zeros((2, 4)), "_mask": np.ones(2), "_index": [0, 1]}
    with pytest.raises(UserError, match="here: the records are tokens, not images"):
        forward.inputs(batch, "embed_image", forward.IMAGE, "here")
    assert set(forward.inputs(batch, "loss", None, "here")) == {"image_tokens", "_mask"}
