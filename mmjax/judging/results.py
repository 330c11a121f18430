"""What the votes of a study say, as numbers for JSON.

Only first answers to plain pairs count as votes. Traps and repeats tell how attentive a
rater is; raters below the threshold are left out of the votes and listed as such.

Legend: n votes, p prompts, u pairs, m models, t resamples.
"""

import collections
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.judging import study as studies
from mmjax.judging.study import QUESTIONS, SCORED, Study
from mmjax.judging.votes import Vote
from mmjax.metrics import agreement, bootstrap, preference

REFERENCE = {"realism": 0.900, "match": 0.933}  # Ramesh et al. 2021, figure 7
REFERENCE_NAME = "DALL-E over DF-GAN (Ramesh et al. 2021)"


def summary(
    study: Study,
    votes: Sequence[Vote],
    *,
    min_attention: float = 0.0,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """All numbers of a report that come from people."""
    raters = _raters(study, votes, min_attention)
    kept = {row["rater"] for row in raters if not row["excluded"]}
    counted = [v for v in votes if v.rater in kept and _is_plain(study, v.pair)]
    draw = {"resamples": resamples, "seed": seed}
    return {
        "models": [model.name for model in study.models],
        "prompts": len(study.prompts),
        "pairs": len(study.of("plain")),
        "votes_wanted": study.votes,
        "min_attention": min_attention,
        "interval": bootstrap.describe("prompts and raters, crossed", **draw),
        "questions": {q: _question(study, counted, q, draw) for q in QUESTIONS},
        "traps": _traps(study, votes),
        "raters": raters,
        "excluded": [row["rater"] for row in raters if row["excluded"]],
    }


def _is_plain(study: Study, name: str) -> bool:
    return studies.original(name) is None and study.pairs[name].kind == "plain"


def _raters(
    study: Study, votes: Sequence[Vote], min_attention: float
) -> list[dict[str, Any]]:
    """A row a rater; `attention` is the share of traps answered right, None of none."""
    tallies = tallies_of(v for v in votes if _is_plain(study, v.pair))
    rows = []
    for rater, own in _by(votes, "rater").items():
        said = {(v.pair, v.question): v.choice for v in own}
        traps = [v.choice == "a" for v in own if _is_trap(study, v)]
        again = [
            v.choice == said[first]
            for v in own
            if (first := (studies.original(v.pair), v.question)) in said
        ]
        others = [
            _with_others(tallies[v.pair, v.question], v.choice)
            for v in own
            if _is_plain(study, v.pair)
        ]
        others = [right for right in others if right is not None]
        attention = _share(traps)
        rows.append(
            {
                "rater": rater,
                "votes": sum(_is_plain(study, v.pair) for v in own),
                "traps": len(traps),
                "traps_right": sum(traps),
                "attention": attention,
                "repeats": len(again),
                "repeats_same": sum(again),
                "with_majority_of_others": _share(others),
                "median_seconds": float(np.median([v.seconds for v in own])),
                "excluded": attention is not None and attention < min_attention,
            }
        )
    return sorted(rows, key=lambda row: row["rater"])


def _is_trap(study: Study, vote: Vote) -> bool:
    """Whether a vote answers the question that its trap is about."""
    if studies.original(vote.pair) is not None:
        return False
    return SCORED.get(study.pairs[vote.pair].kind) == vote.question


def _with_others(tally: np.ndarray, choice: str) -> bool | None:
    """Whether a vote is that of the majority of the others; None where they tie."""
    others = tally - [choice == "a", choice == "b"]
    return None if others[0] == others[1] else "ab"[others.argmax()] == choice


def _traps(study: Study, votes: Sequence[Vote]) -> dict[str, dict[str, Any]]:
    """How often traps of each kind were answered right, by all raters."""
    found = {}
    for kind in SCORED:
        own = [
            v.choice == "a"
            for v in votes
            if _is_trap(study, v) and study.pairs[v.pair].kind == kind
        ]
        found[kind] = {"asked": len(own), "right": sum(own), "share": _share(own)}
    return found


def _question(
    study: Study, votes: Sequence[Vote], question: str, draw: Mapping[str, int]
) -> dict[str, Any]:
    own = [v for v in votes if v.question == question]
    tallies = {pair: row for (pair, _), row in tallies_of(own).items()}
    between = _by_models(study, own)
    rows = [
        _comparison(study, names, between[names], draw)
        for names in itertools.combinations(range(len(study.models)), 2)
    ]
    return {
        "votes": len(own),
        "raters": len({v.rater for v in own}),
        "comparisons": rows,
        "agreement": _agreement(study, tallies, draw),
        "strengths": _strengths(study, own, draw) if len(study.models) > 2 else [],
    }


def _comparison(
    study: Study, models: tuple[int, int], votes: Sequence[Vote], draw: Mapping
) -> dict[str, Any]:
    """How the first of two models fares against the second."""
    first, second = (study.models[m].name for m in models)
    right_n = np.array([v.choice == "a" for v in votes], float)
    prompt_n = np.array([study.pairs[v.pair].prompt for v in votes], int)
    rater_n = np.array([v.rater for v in votes], int)
    tallies = tallies_of(votes)
    won_u = np.array([row[0] for row in tallies.values()], float)
    count_u = np.array([row.sum() for row in tallies.values()], float)
    major_u = preference.majority(won_u, count_u)
    by_prompt = np.array([study.pairs[pair].prompt for pair, _ in tallies], int)
    whole = count_u == study.votes
    return {
        "first": first,
        "second": second,
        "votes": len(votes),
        **_share_of("share", right_n, [prompt_n, rater_n], draw),
        "pairs": len(tallies),
        "pairs_whole": int(whole.sum()),
        "ties": int((major_u == 0.5).sum()),
        **_share_of("majority", major_u, [by_prompt], draw),
        # of whole pairs: how many gave the first 0, 1, ... of their votes
        "histogram": np.bincount(
            won_u[whole].astype(int), minlength=study.votes + 1
        ).tolist(),
    }


def _share_of(
    name: str,
    value_n: np.ndarray,
    clusters: Sequence[np.ndarray],
    draw: Mapping[str, int],
) -> dict[str, Any]:
    """A mean with Wilson's interval, the bootstrap's over clusters, and what to quote.

    `_lo` and `_hi` are the outer ends of both: a bootstrap of votes that are all the
    same has no width, and Wilson's knows no clusters. None of no values.
    """
    if not len(value_n):
        ends = {"_wilson": [None, None], "_bootstrap": [None, None]}
        values = {"": None, "_lo": None, "_hi": None, **ends}
    else:
        drawn = [
            weight_n @ value_n / weight_n.sum() if weight_n.any() else np.nan
            for weight_n in bootstrap.crossed(clusters, **draw)
        ]
        wilson = preference.wilson(float(value_n.sum()), len(value_n))
        low, high = map(float, bootstrap.middle(drawn))
        values = {
            "": float(value_n.mean()),
            "_lo": float(np.nanmin([wilson[0], low])),
            "_hi": float(np.nanmax([wilson[1], high])),
            "_wilson": list(wilson),
            "_bootstrap": [low, high] if np.isfinite(low) else [None, None],
        }
    return {name + end: value for end, value in values.items()}


def _agreement(
    study: Study, tallies: Mapping[str, np.ndarray], draw: Mapping[str, int]
) -> dict[str, Any]:
    """Krippendorff's alpha over pairs, with its interval over prompts.

    The categories are the models. Where one wins nearly all, alpha is small though
    raters agree; `same`, the share of pairs of raters that say the same, is not.
    """
    if not tallies:
        return {"alpha": None, "alpha_lo": None, "alpha_hi": None, "same": None}
    counts_uc = np.zeros((len(tallies), len(study.models)))
    for row_c, (name, (for_a, for_b)) in zip(counts_uc, tallies.items(), strict=True):
        pair = study.pairs[name]
        row_c[pair.a.model], row_c[pair.b.model] = for_a, for_b
    prompt_u = np.array([study.pairs[name].prompt for name in tallies])
    drawn = [
        agreement.krippendorff(counts_uc, weight_u)
        for weight_u in bootstrap.crossed([prompt_u], **draw)
    ]
    low, high = bootstrap.middle(drawn)
    values = {
        "alpha": agreement.krippendorff(counts_uc),
        "alpha_lo": float(low),
        "alpha_hi": float(high),
        "same": agreement.raw(counts_uc),
    }
    return {k: value if np.isfinite(value) else None for k, value in values.items()}


def _strengths(
    study: Study, votes: Sequence[Vote], draw: Mapping[str, int]
) -> list[dict[str, Any]]:
    """Bradley-Terry log strengths, the strongest first, with crossed intervals."""
    m = len(study.models)
    if not votes:
        return []
    pairs = [study.pairs[v.pair] for v in votes]
    won_n = [
        p.a.model if v.choice == "a" else p.b.model
        for p, v in zip(pairs, votes, strict=True)
    ]
    lost_n = [
        p.b.model if v.choice == "a" else p.a.model
        for p, v in zip(pairs, votes, strict=True)
    ]
    cell_n = np.array(won_n) * m + np.array(lost_n)

    def wins(weight_n: np.ndarray) -> np.ndarray:
        return np.bincount(cell_n, weight_n, m * m).reshape(m, m)

    clusters = [np.array([p.prompt for p in pairs]), np.array([v.rater for v in votes])]
    wins_tmm = np.stack(
        [wins(w) for w in bootstrap.crossed(clusters, **draw) if w.any()]
    )
    low_m, high_m = bootstrap.middle(preference.bradley_terry(wins_tmm))
    score_m = preference.bradley_terry(wins(np.ones(len(votes))))
    return [
        {
            "model": study.models[i].name,
            "strength": float(score_m[i]),
            "strength_lo": float(low_m[i]),
            "strength_hi": float(high_m[i]),
        }
        for i in np.argsort(-score_m)
    ]


def majorities(study: Study, votes: Iterable[Vote], question: str) -> dict[str, float]:
    """Of each plain pair with votes 1.0 where `a` has most, 0.5 of a tie, or 0.0."""
    own = [v for v in votes if v.question == question and _is_plain(study, v.pair)]
    return {
        pair: float(preference.majority(row[0], row.sum()))
        for (pair, _), row in tallies_of(own).items()
    }


def tallies_of(votes: Iterable[Vote]) -> dict[tuple[str, str], np.ndarray]:
    """(pair, question) -> how many said a, and b."""
    tallies: dict[tuple[str, str], np.ndarray] = collections.defaultdict(
        lambda: np.zeros(2, int)
    )
    for v in votes:
        tallies[v.pair, v.question]["ab".index(v.choice)] += 1
    return tallies


def _by_models(
    study: Study, votes: Sequence[Vote]
) -> dict[tuple[int, int], list[Vote]]:
    groups: dict[tuple[int, int], list[Vote]] = collections.defaultdict(list)
    for v in votes:
        pair = study.pairs[v.pair]
        groups[pair.a.model, pair.b.model].append(v)
    return groups


def _by(votes: Iterable[Vote], name: str) -> dict[Any, list[Vote]]:
    groups: dict[Any, list[Vote]] = collections.defaultdict(list)
    for v in votes:
        groups[getattr(v, name)].append(v)
    return groups


def _share(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None
