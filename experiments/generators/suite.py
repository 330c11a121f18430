"""Prior, diffusion and DF-GAN on the same prompts, as suites.

    mmjax eval experiments/generators/suite.py WORKDIR
    mmjax eval experiments/generators/suite.py:guidance WORKDIR   # not of a GAN
    mmjax eval experiments/generators/suite.py:steps WORKDIR      # of diffusion

`runs/judge_clip` (configs/clip.py:shapes) and `runs/judge` (configs/classifier.py's
shapes) judge: networks that none of the generators was trained with.
"""

from ml_collections import ConfigDict

from mmjax_configs import common, diffusion, suites

COUNT = 400
_DRAWN = dict(type="generation", batch_size=100)


def _sets() -> dict:
    return {
        "shapes": dict(source=f"shapes:val?size=32&count={COUNT}"),
        "unseen": dict(source=f"shapes:unseen?size=32&count={COUNT}"),
    }


def judged() -> ConfigDict:
    """The first candidate, and the best of eight by the judging CLIP."""
    known = dict(kind="mixture", parts=diffusion.shapes().data.train)
    networks = dict(clip="runs/judge_clip", features="runs/judge")
    first = dict(_DRAWN, judges=("oracle", "clip", "frechet"), known=known, **networks)
    best = dict(_DRAWN, judges=("oracle",), candidates=8, best_of=(1, 8), known=known)
    return suites.suite(
        _sets(),
        dict(
            first=dict(first, show=("oracle_new", "oracle_seen", "fid", "clip_score")),
            best=dict(best, clip="runs/judge_clip", show=("oracle_new_best8",)),
        ),
    )


def guidance() -> ConfigDict:
    """What is right, and FID, against the guidance scale."""
    scales = dict(guidance=(1.0, 1.5, 2.0, 3.0, 5.0))
    judges = dict(judges=("oracle", "frechet"), features="runs/judge")
    swept = dict(_DRAWN, sampling=scales, **judges)
    return suites.suite({"shapes": _sets()["shapes"]}, dict(guidance=swept))


def steps() -> ConfigDict:
    """What is right against the steps of each sampler."""
    numbers = dict(steps=(5, 10, 20, 50, 100))
    samplers = ("ddim", "dpm_solver", "euler", "heun", "ddpm")
    return suites.suite(
        {"shapes": _sets()["shapes"]},
        {name: dict(_DRAWN, sampling=dict(numbers, sampler=name)) for name in samplers},
    )


PRESETS = {f.__name__: f for f in (judged, guidance, steps)}
get_config = common.chooser(PRESETS)
