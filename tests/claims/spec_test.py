"""Every experiment of the repository, and what a wrong one is told."""

import pathlib

import pytest

from mmjax.claims import plan, spec
from mmjax.errors import UserError

ROOT = pathlib.Path(__file__).parents[2] / "experiments"
GOOD = dict(
    claim="a is above b",
    source="",
    config="cca:tiny",
    arms=dict(a=dict(), b=dict(overrides={"optim.lr": 3e-3})),
    checks=(
        dict(says="", kind="difference", arms=("a", "b"), metric="test/correlation"),
    ),
    scales=dict(tiny=dict(seeds=2)),
)


@pytest.mark.parametrize("name", spec.names(ROOT))
def test_experiments_have_configs_and_metrics_that_exist(name, tmp_path, monkeypatch):
    monkeypatch.setenv("MMJAX_DATA", "/data")
    path = spec.find(name, ROOT)
    experiment = spec.read(path)
    for scale_name in experiment.scales:
        scale = experiment.at(scale_name)
        points = experiment.points(scale)
        first = {name: points[name] for name in points}
        made = plan.runs(first, 1, tmp_path, root=str(path.parent))
        known = {}
        for run in made:
            known[run.arm] = set(run.config.evals)
            assert (
                run.suite is None
                or pathlib.Path(run.commands[1][1]).exists()
                or (run.commands[1][1].startswith("configs/"))
            )
        for check in experiment.checks:
            for arm, metric in check.terms():
                place = metric.partition("/")[0]
                if arm in known:  # of this scale
                    assert place in known[arm] or "." in place, (arm, metric)
                    assert "." not in place or points[arm].suite


def write(tmp_path, **more):
    path = tmp_path / spec.FILE
    path.write_text(f"EXPERIMENT = {GOOD | more!r}\n")
    return path


def test_a_grid_and_arms_multiply(tmp_path):
    grid = {"optim.lr": (1e-3, 3e-3), "task.encoder.lr": (1,)}
    experiment = spec.read(write(tmp_path, grid=grid, checks=()))
    points = experiment.points(experiment.at("tiny"))
    assert list(points) == [
        f"{arm},optim.lr={lr},task.encoder.lr=1"
        for arm in "ab"
        for lr in (0.001, 0.003)
    ]
    assert points["b,optim.lr=0.001,task.encoder.lr=1"].overrides["optim.lr"] == 3e-3


CHECK = GOOD["checks"][0]


@pytest.mark.parametrize(
    "more, why",
    [
        (dict(sources=""), "unknown key 'sources'.*did you mean 'source'"),
        (dict(scales=dict(tny={})), "no scale 'tny'; did you mean 'tiny'"),
        (dict(checks=(CHECK | dict(arms=("a", "c")),)), "no arm 'c'"),
        (
            dict(checks=(CHECK | dict(arms=("a",)),)),
            "difference compares 2 arms, and 1",
        ),
        (
            dict(checks=(CHECK | dict(band=(2.0, 1.0)),)),
            "band .*low end, then its high",
        ),
        (dict(checks=(CHECK | dict(kind="power_law"),)), "compares 3 arms, and 2"),
    ],
)
def test_a_wrong_experiment_is_told_what_is_wrong(tmp_path, more, why):
    with pytest.raises(UserError, match=why):
        spec.read(write(tmp_path, **more))


def test_one_seed_has_no_interval(tmp_path):
    experiment = spec.read(write(tmp_path, scales=dict(tiny=dict(seeds=1))))
    with pytest.raises(UserError, match="seeds is 1, and a check asks for an interval"):
        experiment.at("tiny")
    with pytest.raises(UserError, match="no --scale paper; .*legal: tiny"):
        experiment.at("paper")


def test_a_claim_that_does_not_exist(tmp_path):
    with pytest.raises(UserError, match="'co_trainin'; did you mean 'co_training'"):
        spec.find("co_trainin", ROOT)
    with pytest.raises(UserError, match="holds no experiments"):
        spec.find("x", tmp_path)
    path = tmp_path / spec.FILE
    path.write_text("1 / 0")
    with pytest.raises(UserError, match="ZeroDivisionError"):
        spec.read(path)
    path.write_text("X = 1")
    with pytest.raises(UserError, match="defines no dict EXPERIMENT"):
        spec.read(path)
