"""What each modality gives to an answer: every measure is a mean over items.

    rows = fusion.measures(utility, ("text", "audio"), rates=(0.5,))
    rows["shapley_text"].mean()

Legend: n items, such as utterances; S a set of modalities that are given.
"""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from mmjax.errors import UserError

Utility = Mapping[tuple[str, ...], np.ndarray]
LARGEST = 8  # modalities: all their sets are looked at


def subsets(inputs: Sequence[str]) -> list[tuple[str, ...]]:
    """All sets of the inputs, from none to all, each in the inputs' order."""
    if len(inputs) > LARGEST:
        raise UserError(
            f"{len(inputs)} modalities have {2 ** len(inputs)} sets: use {LARGEST} or "
            "fewer"
        )
    sizes = range(len(inputs) + 1)
    return [s for size in sizes for s in itertools.combinations(inputs, size)]


def shapley(utility: Utility, inputs: Sequence[str]) -> dict[str, np.ndarray]:
    """Each modality's share in what all give more than none (Shapley 1953), (n,).

    The mean, over all orders in which modalities come, of what it adds on its coming.
    Shares sum to `utility[all] - utility[()]`.
    """
    count, shares = len(inputs), {}
    for name in inputs:
        share_n = 0.0
        for chosen in subsets([other for other in inputs if other != name]):
            orders = math.factorial(len(chosen)) * math.factorial(
                count - len(chosen) - 1
            )
            joined = tuple(x for x in inputs if x in (*chosen, name))
            added_n = utility[joined] - utility[chosen]
            share_n = share_n + orders / math.factorial(count) * added_n
        shares[name] = share_n
    return shares


def measures(
    utility: Utility, inputs: Sequence[str], rates: Sequence[float] = ()
) -> dict[str, np.ndarray]:
    """By name, what each item adds to a mean, (n,).

    Args:
      utility: of every set S of `subsets(inputs)`, each item's worth when S alone is
        given: 1 of a right class, or minus an error.
      rates: shares of modalities that are missing.

    Returns:
      all; none; only_NAME; without_NAME, where there are three or more; shapley_NAME;
      and missing_RATE, the expectation where each modality is missing with that
      probability, on its own, and one is left at least.
    """
    rows = {"all": utility[tuple(inputs)], "none": utility[()]}
    rows |= {f"only_{name}": utility[(name,)] for name in inputs}
    if len(inputs) > 2:
        for name in inputs:
            rest = tuple(other for other in inputs if other != name)
            rows[f"without_{name}"] = utility[rest]
    rows |= {f"shapley_{k}": v for k, v in shapley(utility, inputs).items()}
    for rate in rates:
        chance = {
            given: (1 - rate) ** len(given) * rate ** (len(inputs) - len(given))
            for given in subsets(inputs)
            if given
        }
        total = sum(chance.values())
        mean_n = sum(p / total * utility[given] for given, p in chance.items())
        rows[f"missing_{rate:g}"] = mean_n
    return rows
