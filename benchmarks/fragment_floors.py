"""What fragment embeddings have to beat: Flickr8k by CCA, KiloGram by rules and EM.

    python benchmarks/fragment_floors.py flickr8k TRAIN.npz DEV.npz
    python benchmarks/fragment_floors.py kilogram FOLDER

Flickr8k: linear CCA between pooled image features (square root, unit length) and TF-IDF
of captions (400 columns of its SVD), 256 components, reg a tenth of the mean variance,
products of codes weighed by the squared correlations. KiloGram: chance, a rule by
height, and IBM model 1 and an HMM over clusters of pieces, on tangrams held out.

Legend: n images, m captions, d columns.
"""

import argparse
import json
import pathlib

import numpy as np

from mmjax.data.sources import open_source
from mmjax.metrics import bootstrap, cca, ranking, word_alignment

TOP = (1, 5, 10)


def _unit(x_nd: np.ndarray) -> np.ndarray:
    return x_nd / np.maximum(np.linalg.norm(x_nd, axis=1, keepdims=True), 1e-12)


def flickr8k(train: str, dev: str) -> dict[str, float]:
    """Recalls and median ranks of dev, both ways, in percent."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    parts = [np.load(path) for path in (train, dev)]
    image = [_unit(np.sqrt(np.maximum(p["features"], 0))) for p in parts]
    captions = [p["captions"].reshape(-1) for p in parts]
    owner = [
        np.repeat(np.arange(len(p["captions"])), p["captions"].shape[1]) for p in parts
    ]
    tfidf = TfidfVectorizer(min_df=2, sublinear_tf=True, stop_words="english")
    svd = TruncatedSVD(400, random_state=0)
    text = [svd.fit_transform(tfidf.fit_transform(captions[0]))]
    text += [svd.transform(tfidf.transform(captions[1]))]
    views = image[0][owner[0]], text[0]
    reg = [0.1 * x.var(0).mean() for x in views]
    fitted = cca.fit(views, 256, reg=reg)
    coded = fitted.codes((image[1], text[1]))
    image_nk, text_mk = (_unit(x * fitted.correlations) for x in coded)
    pairs = owner[1], np.arange(len(owner[1]))
    ranks = {
        "i2t": ranking.ranks(image_nk, text_mk, *pairs),
        "t2i": ranking.ranks(text_mk, image_nk, *pairs[::-1]),
    }
    values = {f"{w}_r{k}": 100 * (r < k).mean() for w, r in ranks.items() for k in TOP}
    return values | {f"{w}_median": np.median(r) + 1 for w, r in ranks.items()}


# Words of things that are above and below in a figure; every other word is in between.
ABOVE = {"head", "face", "hat", "hair", "roof", "top", "ears", "ear", "neck", "beak"}
BELOW = {"feet", "foot", "legs", "leg", "base", "bottom", "stand", "stem", "shoes"}


def kilogram(folder: str, clusters: int = 40) -> dict[str, float]:
    """Shares of right pieces on held-out tangrams, 95 % intervals over tangrams."""
    from sklearn.cluster import KMeans

    spec = f"kilogram:{folder}?group=_&part="
    parts = {part: _records(f"{spec}{part}") for part in ("train", "held_out")}
    shapes = np.concatenate([r["regions"] for r in parts["train"]])
    unique = np.unique(shapes, axis=0)
    groups = KMeans(clusters, n_init=4, random_state=0).fit(unique)
    symbols = {p: [groups.predict(r["regions"]) for r in rs] for p, rs in parts.items()}
    names = sorted(
        {p.lower().split()[-1] for r in parts["train"] for p in r["phrases"]}
    )
    number = {name: i for i, name in enumerate(names, 1)}  # 0: unknown
    words = {
        part: [
            np.array([number.get(p.lower().split()[-1], 0) for p in r["phrases"]])
            for r in rs
        ]
        for part, rs in parts.items()
    }
    picks: dict[str, list[np.ndarray]] = {
        "height": [_by_height(r) for r in parts["held_out"]]
    }
    # the order of a set says nothing: it is drawn, so that gold lies on no diagonal
    rng = np.random.default_rng(0)
    order = {part: [rng.permutation(7) for _ in rs] for part, rs in parts.items()}
    mixed = {p: [w[o] for w, o in zip(words[p], order[p], strict=True)] for p in parts}
    for chain in (False, True):
        fitted = word_alignment.fit(mixed["train"], symbols["train"], chain=chain)
        found = []
        for w, s, o in zip(
            mixed["held_out"], symbols["held_out"], order["held_out"], strict=True
        ):
            pick = np.empty(7, int)
            pick[o] = fitted.posterior(w, s).argmax(1)
            found.append(pick)
        picks["hmm" if chain else "ibm1"] = found
    labels = np.array([r["label"] for r in parts["held_out"]])
    return _shares(picks, parts["held_out"], labels)


def _records(spec: str) -> list[dict]:
    source = open_source(spec)
    return [source[i] for i in range(len(source))]


def _by_height(record: dict) -> np.ndarray:
    """The highest piece for ABOVE, the lowest for BELOW, the largest for the rest."""
    boxes = record["boxes"]
    middle = boxes[:, 1] + boxes[:, 3] / 2
    large = record["regions"][:, 64].argmax()
    words = [p.lower().split()[-1] for p in record["phrases"]]
    rule = {
        **dict.fromkeys(ABOVE, middle.argmin()),
        **dict.fromkeys(BELOW, middle.argmax()),
    }
    return np.array([rule.get(word, large) for word in words])


def _shares(picks: dict, records: list[dict], labels: np.ndarray) -> dict[str, float]:
    tangrams, group = np.unique(labels, return_inverse=True)
    phrases = [np.array([p.lower() for p in r["phrases"]]) for r in records]
    values = {}
    for name, found in picks.items():
        right = np.array([(p == np.arange(7)).mean() for p in found])
        equal = np.array(
            [(t[p] == t).mean() for p, t in zip(found, phrases, strict=True)]
        )
        hits = np.stack([np.bincount(group, weights=x) for x in (right, equal)])
        values |= _intervals([name, f"{name}_equal"], hits, np.bincount(group))
    same = [np.mean(t[:, None] == t) for t in phrases]
    return values | {"chance": 1 / 7, "chance_equal": float(np.mean(same))}


def _intervals(names: list[str], hits: np.ndarray, count: np.ndarray) -> dict:
    """Shares with intervals over groups, of hits (names, groups)."""

    def shares(weight: np.ndarray) -> np.ndarray:
        return hits @ weight / (count @ weight)

    return bootstrap.with_interval(names, shares, len(count), resamples=1000, seed=0)


def main() -> None:
    """See the module's head."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("data", choices=("flickr8k", "kilogram"))
    add("paths", nargs="+", type=str)
    add("--json", type=pathlib.Path, help="also write the numbers there")
    args = parser.parse_args()
    values = {"flickr8k": flickr8k, "kilogram": kilogram}[args.data](*args.paths)
    for name, value in values.items():
        print(f"{name:<20} {value:.4f}")
    if args.json:
        args.json.write_text(json.dumps(values, indent=1, default=float))


if __name__ == "__main__":
    main()
