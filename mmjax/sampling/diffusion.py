"""The options of drawing with a diffusion model, and the levels that they stand for."""

import dataclasses
import math

import numpy as np

from mmjax.sampling.noise import Schedule
from mmjax.sampling.solvers import SOLVERS, Levels

SPACINGS = ("trailing", "leading", "linspace")
DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How noise becomes an image.

    sampler: one of ddim, ddpm, plms, dpm_solver, euler, heun; see
      `mmjax.sampling.solvers`.
    steps: of the sampler.
    guidance: s of `u + s (c - u)`, what the network gives with (c) and without (u) the
      prompt (Ho and Salimans 2022); 1 is off, and costs half.
    eta: noise added by "ddim" in each step, 0 to 1.
    strength: how much of a given image is drawn anew, above 0 to 1: that share of the
      steps, the last ones, is done (image-to-image).
    spacing: which of the schedule's steps are taken. "trailing" begins at the last,
      "leading" ends at the first, "linspace" does both (Lin et al. 2023, table 2).
    offset: added to the steps of "leading", 1 for Stable Diffusion.
    clean: whether the last step ends in data without noise; otherwise in those of the
      schedule's first step, as Stable Diffusion's DDIM does.
    clip: bound of an estimated image's pixels, in [-1, 1], for models of pixels; 0 is
      off.
    dtype: of the network's compute.
    """

    sampler: str = "dpm_solver"
    steps: int = 20
    guidance: float = 1.0
    eta: float = 0.0
    strength: float = 1.0
    spacing: str = "trailing"
    offset: int = 0
    clean: bool = True
    clip: float = 0.0
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for key, legal in (
            ("sampler", tuple(SOLVERS)),
            ("spacing", SPACINGS),
            ("dtype", DTYPES),
        ):
            if getattr(self, key) not in legal:
                raise ValueError(
                    f"{key} is {getattr(self, key)!r}: use {', '.join(legal)}"
                )
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}: use 1 or more")
        if not math.isfinite(self.guidance):
            raise ValueError(f"guidance is {self.guidance}: use a number, or 1 for off")
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta is {self.eta}: use 0 to 1")
        if self.eta and self.sampler != "ddim":
            raise ValueError(
                f"eta is {self.eta}, and {self.sampler} adds no noise by it: use the "
                "sampler ddim, or eta 0"
            )
        if not 0 < self.strength <= 1:
            raise ValueError(f"strength is {self.strength}: use above 0, to 1")
        if self.offset < 0 or not 0 <= self.clip < math.inf:
            raise ValueError(
                f"offset is {self.offset} and clip {self.clip}: use 0 or more"
            )

    @property
    def guided(self) -> bool:
        """Whether a second stream of rows, without the prompt, is needed."""
        return self.guidance != 1.0


def levels(schedule: Schedule, options: Sampling) -> Levels:
    """The levels of all steps; ValueError where the schedule has fewer steps."""
    total, n = schedule.steps, options.steps
    if n + (options.offset if options.spacing == "leading" else 0) > total:
        raise ValueError(
            f"sampling.steps is {n} and offset {options.offset}, and the schedule has "
            f"{total} steps: use fewer"
        )
    if options.spacing == "trailing":
        time = np.round(np.arange(total, 0, -total / n)[:n]) - 1
    elif options.spacing == "leading":
        time = (np.arange(n) * (total // n))[::-1] + options.offset
    else:
        time = np.linspace(0, total - 1, n).round()[::-1]
    alpha, sigma = (x[time.astype(int)] for x in schedule.table)
    end = (1.0, 0.0) if options.clean else [x[0] for x in schedule.table]
    return Levels(
        time.astype(np.float64), np.append(alpha, end[0]), np.append(sigma, end[1])
    )


def last(levels: Levels, strength: float) -> Levels:
    """The last `strength` of the steps, at least one."""
    n = len(levels.time)
    skip = n - min(max(int(n * strength), 1), n)
    return Levels(*(x[skip:] for x in levels))
