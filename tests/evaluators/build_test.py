"""Evaluators by type name, and errors that name the place and the nearest key."""

import sys
import types

import pytest

from mmjax import evaluators
from mmjax.errors import UserError


def test_types(make_env, make_source):
    env = make_env({"s": make_source([[1] * 12] * 4, class_names=("x", "y"))})
    for kind in ("mean_loss", "zero_shot", "retrieval"):
        built = evaluators.build("val", {"type": kind, "source": "s", "every": 7}, env)
        assert type(built).__module__ == f"mmjax.evaluators.{kind}"
        assert built.config.every == 7


def test_a_type_by_dotted_name(make_env, monkeypatch):
    module = types.ModuleType("outside_lab")
    module.Evaluator = lambda cfg, env, where: (cfg, where)
    parent = types.ModuleType("lab")
    monkeypatch.setitem(sys.modules, "lab", parent)
    monkeypatch.setitem(sys.modules, "lab.outside", module)
    built = evaluators.build("mine", {"type": "lab.outside"}, make_env())
    assert built == ({"type": "lab.outside"}, "config.evals.mine")


@pytest.mark.parametrize(
    "cfg, words",
    [
        ({"type": "zeroshot", "source": "s"}, "did you mean 'zero_shot'"),
        ({"type": "card", "source": "s"}, "no evaluator is called 'card'"),
        ({"type": "no.where", "source": "s"}, "'no.where'"),
        ({"source": "s"}, "'type' is missing .*mean_loss, .*retrieval, .*zero_shot"),
        ({"type": "retrieval"}, "evals.val: 'source' is missing"),
        ({"type": "retrieval", "source": "s", "limt": 3}, "did you mean 'limit'"),
        ({"type": "retrieval", "source": "s", "limit": 0}, "limit must be at least 1"),
        ({"type": "retrieval", "source": "s", "template": "x"}, "'x' has no {}"),
        ({"type": "zero_shot", "source": "s", "templates": "clip81"}, "'clip80'"),
        ({"type": "mean_loss", "source": "s", "partial": "x"}, "'drop', 'mask'"),
    ],
)
def test_refusals(make_env, make_source, cfg, words):
    env = make_env({"s": make_source([[1] * 12] * 4, class_names=("x", "y"))})
    with pytest.raises(UserError, match=words):
        evaluators.build("val", cfg, env)
