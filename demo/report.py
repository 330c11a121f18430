"""The demo's report: one HTML file that shows what was trained and how good it is.

It is made of what the stages leave in the workdir, and may be written after any of
them: what is missing yet is named in its place.
"""

import dataclasses
import json
import logging
import pathlib
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from mmjax import errors, schema
from mmjax.errors import UserError
from mmjax.parallel import runtime
from mmjax.report import charts, curves, elements, numbers, page
from mmjax.train import metric_writer
from mmjax_demo import panels, words

_log = logging.getLogger(__name__)
FILE = "report.html"
TITLE = "From captions to pictures, from nothing, on one machine"
RUNS = {  # run: (title, what its loss is)
    "clip": (
        "CLIP",
        "InfoNCE: how hard it is to tell a picture's caption from those of the others "
        "in the batch.",
    ),
    "tokenizer": (
        "Image tokenizer",
        "How far reconstructions are from the pictures, and vectors from their codes.",
    ),
    "prior": (
        "Prior",
        "Mean nats of a token, given those before it; text counts less than image.",
    ),
}
_STORY = (
    "Three small neural networks were trained here from random numbers, on nothing but "
    "drawn scenes of coloured shapes and their English captions. CLIP learned which "
    "caption belongs to which picture. An image tokenizer learned to write a picture "
    "as a short grid of codes and to read it back. A prior, a transformer in the "
    "manner of DALL·E, learned to continue a caption with the codes of a fitting "
    "picture. Then the prior drew many candidates for captions whose pictures none of "
    "the three had seen, CLIP chose among them, and an oracle, an ordinary program "
    "with nothing learned in it, looked at the result and counted what was right."
)
_TILES = (
    ("zero_shot_val", "of new pictures named right by CLIP"),
    ("zero_shot_unseen", "named right where the pair of colour and shape is new"),
    ("psnr", "fidelity of pictures rebuilt from their tokens"),
    ("oracle_new_k1", "of captions new to the prior drawn right by its first picture"),
    ("oracle_new_k{k}", "drawn right by the one of {k} that CLIP chooses"),
    ("oracle_unseen_k{k}", "the same where the pair of colour and shape is new"),
    ("completion_oracle", "of pictures right after their lower half was drawn anew"),
    ("minutes", "of wall clock for everything on this page"),
)


@dataclasses.dataclass(frozen=True)
class _Found:
    """What the stages have left in the workdir."""

    workdir: pathlib.Path
    summary: Mapping[str, Any]
    results: Mapping[str, Any]

    @property
    def k(self) -> int:
        """The largest pool of candidates; 1 where none was drawn."""
        return max((k for c in self.curves.values() for k in c["k"]), default=1)

    @property
    def curves(self) -> dict[str, Mapping[str, list]]:
        """The K curve of each split that has one."""
        found = self.results.get("k_curve") or {}
        return {name: curve for name, curve in found.items() if curve.get("k")}

    def picture(self, name: str, *, alt: str, text: str, least: int = 560) -> str:
        """A PNG of the workdir, or the line that says that it is not made yet."""
        made = page.image(self.workdir / name, alt=alt, text=text, least=least)
        return made or _absent("judge", name)


def write(workdir: pathlib.Path) -> pathlib.Path:
    """Writes report.html into a demo's workdir and returns its path.

    Reads, where they exist, summary.json, results.json, the metrics.jsonl of the
    three runs and the pictures; nothing is computed anew.
    """
    workdir = pathlib.Path(workdir)
    found = _Found(
        workdir, _read(workdir / "summary.json"), _read(workdir / "results.json")
    )
    made = [(anchor, title, _part(body, found)) for anchor, title, body in _SECTIONS]
    text = page.document(TITLE, _part(_head, found), made, by="mmjax demo")
    path = workdir / FILE
    with errors.writing(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")
    return path


def _read(path: pathlib.Path) -> dict[str, Any]:
    """A JSON object; {} where there is none, or, with a warning, a damaged one."""
    try:
        return schema.read_json(path) if path.exists() else {}
    except UserError as error:
        _log.warning("left out: %s", error)
        return {}


def _part(body: Callable[[_Found], str], found: _Found) -> str:
    """A part of the page; where its values cannot be shown, a line that says so."""
    try:
        return body(found)
    except Exception as error:  # the files may hold anything
        said = f"{type(error).__name__}: {error}"
        _log.warning("%s: a part of the page is left out: %s", found.workdir, said)
        return elements.absent(
            "a file that this part is made of holds other values than numbers, run "
            f"mmjax demo again ({said[:200]})."
        )


def _absent(stage: str, what: str) -> str:
    return elements.absent(f"the {stage} stage hasn't run, which makes {what}.")


def _head(found: _Found) -> str:
    known = {figure.name: figure for figure in words.figures(found.summary)}
    shown = []
    for name, label in _TILES:
        name, label = name.format(k=found.k), label.format(k=found.k)
        if name in known and name not in [figure.name for _, figure in shown]:
            shown.append((label, known[name]))
    return page.paragraph(_STORY, "lead") + elements.tiles(shown)


def _numbers(found: _Found) -> str:
    if not found.summary:
        return _absent("judge", "summary.json")
    note = page.paragraph(
        "Drawing the judged captions or pictures again and again from themselves (the "
        "bootstrap) puts a number into its interval 95 times of 100. What another "
        "training, from another seed, would give is not covered.",
        "soft",
    )
    return note + elements.table(words.figures(found.summary))


def _curves(found: _Found) -> str:
    parts = []
    for name, (title, meaning) in RUNS.items():
        rows = metric_writer.read(found.workdir / name)
        parts.append(f"<h3>{title}</h3>")
        both = [curves.loss(title, rows, meaning), curves.throughput(title, rows)]
        parts.append(
            elements.grid(both) or _absent(name, f"{name}/{metric_writer.FILE}")
        )
    return "".join(parts)


def _clip(found: _Found) -> str:
    note = page.paragraph(
        "CLIP is given a picture and a list of phrases and says which fits best. "
        "Nobody trained it to classify: it only ever saw pictures with captions.",
    )
    return note + found.picture(
        "zero_shot.png",
        alt="New pictures, each beside the five phrases that CLIP ranks first for it.",
        text="Bars are the probabilities CLIP gives to phrases; green is right, red is "
        "a wrong first choice. Pictures marked unseen show a pair of colour and shape "
        "that never occurs in training.",
        least=900,
    )


def _tokenizer(found: _Found) -> str:
    note = page.paragraph(
        "The tokenizer writes a picture as a grid of whole numbers, each a code from a "
        "fixed codebook, and draws it again from these numbers alone. The prior writes "
        "in this language, so whatever is lost here cannot be drawn later.",
    )
    sheet = found.picture(
        "reconstructions.png",
        alt="Rows of held-out pictures, each above the same drawn from its tokens.",
        text="Held-out pictures, and below them the same pictures from their tokens.",
    )
    counts = [c for c in found.results.get("code_counts") or () if curves.finite(c)]
    usage = panels.usage(counts) or _absent("judge", "the count of every code")
    return note + sheet + usage


def _samples(found: _Found) -> str:
    k, known = (
        found.k,
        {f.name: f for f in words.figures(found.summary)},
    )
    note = page.paragraph(
        "Each row holds pictures for the caption above it, drawn token by token. On "
        "the first sheet they are in the order in which they were drawn; on the second "
        f"are the ones that CLIP finds most like the caption, of {k} for each, best "
        "first."
    )
    if {"oracle_new_k1", f"oracle_new_k{k}"} <= known.keys() and k > 1:
        first, best = (
            numbers.spell(known[f"oracle_new_k{n}"].value, "share") for n in (1, k)
        )
        note += elements.finding(
            f"Of captions that the prior never met, all is right in {first} of first "
            f"pictures and in {best} of CLIP's choices among {k}."
        )
    sheets = [
        found.picture(
            "samples_first.png",
            least=440,
            alt="Sheet of the first candidates for some captions, in drawing order.",
            text="Before re-ranking: the first candidates as they were drawn.",
        ),
        found.picture(
            "samples_best.png",
            least=440,
            alt=f"Sheet of CLIP's choices among {k} candidates for the same captions.",
            text=f"After re-ranking: CLIP's choices among {k} candidates, best first.",
        ),
    ]
    unseen = found.picture(
        "unseen_best.png",
        least=440,
        alt=f"Sheet of CLIP's choices among {k} for captions of unseen pairs.",
        text="No picture of these pairs of colour and shape was in the training set of "
        f"any of the three models. CLIP's choices among {k}, best first.",
    )
    title = "<h3>Pairs never seen in training</h3>"
    return note + elements.grid(sheets, "pair") + title + unseen


def _best_of(found: _Found) -> str:
    scores = found.results.get("clip_scores") or {}
    histogram = panels.histogram(scores, found.k) or _absent("judge", "CLIP's scores")
    below = "<h3>What choosing does to the scores</h3>" + histogram
    curves = found.curves
    if not curves:
        return _absent("judge", "the curve over K") + below
    note = page.paragraph(
        "How often a picture shows what its caption says where CLIP chooses it from K "
        "candidates. Choosing helps as long as CLIP knows better than the prior. Bands "
        "are 95 % intervals over captions."
    )
    names = panels.attributes(curves)
    each = [panels.best_of(name, curves) for name in names]
    key = charts.legend([words.SPLITS.get(split, split) for split in curves])
    tables = [
        page.details(
            f"The numbers: {words.SPLITS.get(split, split)}",
            panels.curve_table(split, curve, names),
        )
        for split, curve in curves.items()
    ]
    return note + key + elements.grid(each) + "".join(tables) + below


def _completions(found: _Found) -> str:
    note = page.paragraph(
        "The prior may also be given the upper half of a picture, in tokens, and go on "
        "from there. It must fit what is there and what the caption says is still to "
        "come."
    )
    return note + found.picture(
        "completions.png",
        alt="Rows of three pictures: upper half given, true picture, completion.",
        text="From left to right: what was given, the true picture, what the prior "
        "made of it. It does not see the true lower half.",
        least=480,
    )


def _judges(found: _Found) -> str:
    values = found.results.get("judges") or {}
    cards = found.results.get("cards") or {}
    parts = [
        page.paragraph(
            "The oracle reads shapes back from pixels with arithmetic alone. The other "
            "judges ask whether drawn pictures resemble real ones as a set, and "
            "whether they are copies of training pictures."
        )
    ]
    figures = words.figures(values)
    oracle = [f for f in figures if f.meaning.group == "Oracle"]
    rest = [f for f in figures if f.meaning.group != "Oracle"]
    parts.append(elements.table(rest))
    if oracle:
        title = f"Every number of the oracle ({len(oracle)})"
        parts.append(page.details(title, elements.table(oracle)))
    if not figures:
        parts.append(_absent("judge", "the judges' numbers"))
    parts.append("<h3>Cards: exactly what was measured</h3>")
    for name, card in cards.items():
        kind = card.get("evaluator", "") if isinstance(card, dict) else ""
        title = f"{name} ({kind})" if kind else name
        text = json.dumps(card, indent=2, ensure_ascii=False)
        parts.append(page.details(title, elements.preformatted(text)))
    if not cards:
        parts.append(_absent("judge", "the cards"))
    return "".join(parts)


def _made(found: _Found) -> str:
    about = dict(found.results.get("about") or {})
    prefix = "minutes_"
    minutes = {
        name.removeprefix(prefix): value
        for name, value in found.summary.items()
        if name.startswith(prefix) and curves.finite(value)
    }
    given = about.get("minutes")
    if not minutes and isinstance(given, dict):
        minutes = {
            name: v for name, v in about.pop("minutes").items() if curves.finite(v)
        }
    parts = []
    if minutes:
        parts.append(
            "<h3>Minutes of each stage</h3>" + elements.times([*minutes.items()])
        )
    if about:
        rows = [(name, [elements.data(v, "text")]) for name, v in _flat(about)]
        parts.append(page.matrix("Software, hardware, seeds", ["", ""], rows))
    else:
        parts.append(_absent("judge", "the list of versions, hardware and seeds"))
    parts.append("<h3>Go on from here</h3>" + elements.preformatted(_commands(found)))
    return "".join(parts)


def _flat(values: Mapping[str, Any], above: str = "") -> list[tuple[str, Any]]:
    """(name, value) of nested values, names joined by dots."""
    rows = []
    for name, value in values.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{above}{name}.")
        else:
            rows.append((f"{above}{name}", value))
    return rows


def _commands(found: _Found) -> str:
    def of(name: str) -> str:
        return shlex.quote(str(found.workdir / name))

    mmjax, k = runtime.command(), found.k if found.k > 1 else 64
    prompt, scene = '"a small red star"', of("scene.png")
    return "\n".join(
        [
            "# other captions, re-ranked",
            f"{mmjax} sample {of('prior')} {prompt} --clip {of('clip')} -k {k}",
            "# what lies below the top 8 rows of a picture, drawn anew",
            f"{mmjax} complete {of('prior')} {scene} {prompt} --rows 8 -k 8",
            "# CLIP on pictures and phrases of yours",
            f'{mmjax} zeroshot {of("clip")} {scene} --labels "red star,blue ring"',
            "# what is inside a run",
            f"{mmjax} inspect {of('prior')}",
        ]
    )


_SECTIONS: tuple[tuple[str, str, Callable[[_Found], str]], ...] = (
    ("curves", "Training curves", _curves),
    ("clip", "CLIP: naming what it sees", _clip),
    ("tokenizer", "Tokenizer: pictures as codes", _tokenizer),
    ("samples", "Samples, before and after re-ranking", _samples),
    ("best-of-k", "The more to choose from, the better?", _best_of),
    ("completions", "Completing pictures", _completions),
    ("judges", "What the judges say", _judges),
    ("numbers", "All numbers", _numbers),
    ("made", "How it was made", _made),
)
