"""docs/fields.md: its table has every kind and option, and its example works."""

import dataclasses
import pathlib
import re
import sys

import numpy as np
import pytest
from record_source import Records

from mmjax.data import fields, pipeline
from mmjax.data.fields import base
from mmjax.errors import UserError

ROOT = pathlib.Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "fields.md").read_text("utf-8")
ROWS = {row.split("`")[1]: row for row in re.findall(r"^\| `.*$", TEXT, re.M)}


def test_the_table_has_every_kind_and_option():
    ours = ROOT / "mmjax" / "data" / "fields"  # others may lie elsewhere
    names = [name for name in fields.kinds() if (ours / f"{name}.py").exists()]
    kinds = {name: fields.kind(name, "test") for name in names}
    assert ROWS.keys() == kinds.keys()
    shared = {f.name for f in dataclasses.fields(base.Field)}
    for name, cls in kinds.items():
        options = {f.name for f in dataclasses.fields(cls)} - shared
        written = set(re.findall(r"`(\w+)`", ROWS[name].split("|")[4]))
        inherited = re.search("those of `(\\w+)`", ROWS[name])
        if inherited:
            parent = dataclasses.fields(kinds[inherited[1]])
            options -= {f.name for f in parent}
            written -= {inherited[1]}
        values = {"window", "even", "log_mel", "mfcc", "waveform"}
        assert written - values == options, name


@pytest.fixture
def points(tmp_path, monkeypatch):
    [code] = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    assert len(code.splitlines()) <= 40
    (tmp_path / "points.py").write_text(code)
    monkeypatch.setattr(fields, "__path__", [*fields.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, f"{fields.__name__}.points", raising=False)
    return fields.build({"cloud": {"kind": "points", "count": 4}})


def test_the_example_is_a_kind(points):
    batch = fields.encode(
        points, "cloud", [np.ones((2, 3)), np.arange(21).reshape(7, 3)]
    )
    assert batch["cloud_mask"].sum(1).tolist() == [2, 4]
    assert batch["cloud"][1, :, 0].tolist() == [0, 6, 12, 18]
    source = Records([{"cloud": np.arange(21).reshape(7, 3)}])
    options = {"batch_size": 20, "seed": 0, "threads": 0}
    batch = next(pipeline.TrainIterator(source, points, **options))
    assert batch["cloud"].shape == (20, 4, 3)
    assert set(batch["cloud"][..., 0].ravel()) == {0, 3, 6, 9, 12, 15, 18}
    with pytest.raises(UserError, match=r"expected points \(n, 3\), got \(7, 2\)"):
        fields.encode(points, "cloud", [np.ones((7, 2))])
    with pytest.raises(UserError, match="did you mean 'points'?"):
        fields.build({"cloud": {"kind": "point"}})
