"""Published tables, of both shapes, and the choice of their models."""

import pytest

from mmjax.errors import UserError
from mmjax.suite import published

TOP1 = ("cifar10", "zero_shot", "top1")
LONG = """acc1,acc5,mean_per_class_recall,dataset,model,pretrained,task
0.9,0.99,0.91,vtab/cifar10,B,x,zeroshot_classification
0.8,,,CIFAR-10,C,y,zeroshot_classification
0.97,,,cifar10,C,y,linear_probe
,,,voc,C,y,zeroshot_classification
"""
WIDE = """name,pretrained,params (M),FLOPs (B),Average perf. on 2 datasets,CIFAR-10,\
Flickr image retr. R@5,Flickr text retr. R@1
B,x,986.1,1054.0,0.7,0.9,0.95,0.8
"""


def table(tmp_path, text):
    path = tmp_path / "table.csv"
    path.write_text(text)
    return published.read(path)


def test_long(tmp_path):
    found = table(tmp_path, LONG).results
    assert set(found) == {"B x", "C y"}
    assert found["B x"][TOP1] == 0.9
    assert found["B x"][("cifar10", "zero_shot", "mean_per_class")] == 0.91
    assert found["C y"] == {TOP1: 0.8}  # not the linear probe's


def test_wide(tmp_path):
    assert table(tmp_path, WIDE).results == {
        "B x": {
            TOP1: 0.9,
            ("flickr", "retrieval", "t2i_r5"): 0.95,
            ("flickr", "retrieval", "i2t_r1"): 0.8,
        }
    }


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a,b\n1,2\n", "has the columns a, b: a table has either name"),
        ("", "of an empty file"),
        (LONG.replace("0.8", "80.1"), "line 3, column 'acc1': '80.1'"),
        (LONG.replace("0.8", "high"), "line 3, column 'acc1': 'high'"),
        (LONG.replace("CIFAR-10", ""), "line 3: the column 'dataset' is empty"),
        ("name,pretrained,params (M)\nB,x,3\n", "no result of a kind"),
    ],
)
def test_what_is_refused(text, part, tmp_path):
    with pytest.raises(UserError, match=part):
        table(tmp_path, text)


def test_models_from_best_to_worst():
    results = {f"m{k}": {TOP1: k / 10} for k in range(10)} | {"other": {}}
    found = published.Table("t", results)
    chosen = published.choose(found, [TOP1])
    assert chosen == ["m9", "m7", "m5", "m3", "m0"]
    assert published.choose(found, [TOP1], ["m1", "m3"]) == ["m3", "m1"]
    assert published.choose(found, [TOP1], ["of another table"]) == chosen
    with pytest.raises(UserError, match="did you mean 'other'"):
        published.check_models([found], ["m1", "othr"])


@pytest.mark.parametrize(
    ("name", "model", "measure", "value"),
    [
        (
            "clip_benchmark/benchmark.csv",
            "ViT-B-16-plus-240 laion400m_e32",
            ("fer2013", "zero_shot", "top1"),
            0.4460852605182502,
        ),
        (
            "open_clip/openclip_classification_results.csv",
            "ViT-H-14-378-quickgelu dfn5b",
            TOP1,
            0.9880,
        ),
        (
            "open_clip/openclip_retrieval_results.csv",
            "ViT-SO400M-14-SigLIP-384 webli",
            ("flickr", "retrieval", "i2t_r1"),
            0.9430,
        ),
    ],
)
def test_tables_as_published(bundle, name, model, measure, value):
    found = published.read(bundle / "reference" / name)
    assert found.results[model][measure] == value


def test_a_table_of_another_kind(bundle):
    path = bundle / "reference/clip_benchmark/clip_table_2.csv"
    with pytest.raises(
        UserError, match="has the columns model, image_size.* and 6 more"
    ):
        published.read(path)
