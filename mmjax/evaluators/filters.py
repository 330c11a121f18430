"""What the units of a first layer look for, as a PNG of images.

Legend: p units.
"""

from dataclasses import dataclass

import numpy as np

from mmjax.evaluators import base
from mmjax.report import image_grid

COLUMNS = 20  # images in a row


@dataclass(frozen=True)
class Config(base.EvalConfig):
    """png: the file to write. units: how many are shown, the first ones.

    The source's records are not looked at.
    """

    png: str = "filters.png"
    units: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(units=1)


class Evaluator(base.Evaluator):
    """Calls predict "filters": {unit int32 (p,)} to image (p, s, s, 3) in [0, 1]."""

    config_class = Config

    def check(self, vars_abstract: base.PyTree) -> None:
        """See the base."""
        if "filters" not in self.env.raw:
            raise self.error("this task has no predict function 'filters'")

    def run(self, variables: base.PyTree) -> base.Result:
        """`contrast`: mean over the units of their images' standard deviation."""
        unit_p = np.arange(self.config.units, dtype=np.int32)
        drawn = self.env.predict["filters"](variables, {"unit": unit_p})
        image_pss3 = np.asarray(drawn["image"])
        images = list(image_grid.eight_bit(image_pss3))
        rows = [images[i : i + COLUMNS] for i in range(0, len(images), COLUMNS)]
        image_grid.draw(self.config.png, rows)
        contrast = float(image_pss3.std((1, 2, 3)).mean())
        metrics = {"contrast": "mean standard deviation of a unit's image in [0, 1]"}
        card = self.card({"units": len(images)}, metrics, text=False)
        return base.Result({"contrast": contrast}, card, {"unit": unit_p})
