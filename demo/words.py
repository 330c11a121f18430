"""What the demo's numbers mean, in plain words, by their names in the JSON files."""

import re
from collections.abc import Mapping
from typing import Any

from mmjax.data.shapes import scene
from mmjax.report import numbers
from mmjax.report.numbers import OTHER, SPACE, Meaning

SPLITS = {
    "val": "pairs of colour and shape met in training",
    "unseen": "pairs of colour and shape never met in training",
}
_CHANCE = f"Guessing gets {100 / len(scene.CLASS_NAMES):.1f} %."
_ZERO_SHOT = (
    f"Share of new pictures that CLIP names right among {len(scene.CLASS_NAMES)} "
    "phrases such as “red star”, though it was never trained to classify. "
)
_RIGHT = "Share of captions whose {what} shows all that they say, as the oracle reads "
_RIGHT += "it: number, shape, colour, size, place, background, and nothing besides. "

# (pattern of the name, group, label, meaning, kind); the first that fits all of the
# name. Braces are filled with the pattern's groups.
_TABLE = (
    (
        "zero_shot_val",
        "CLIP",
        "Pictures named right",
        _ZERO_SHOT + _CHANCE,
        "share",
    ),
    (
        "zero_shot_unseen",
        "CLIP",
        "Pictures named right, unseen pairs",
        "The same for pictures of colour-shape pairs that training never showed: the "
        "words must have been learned one by one. " + _CHANCE,
        "share",
    ),
    (
        "retrieval_r1",
        "CLIP",
        "Caption found for a picture",
        "Share of new pictures for which CLIP ranks their own caption first among the "
        "captions of all (recall at 1).",
        "share",
    ),
    (
        "retrieval_text_to_image_r1",
        "CLIP",
        "Picture found for a caption",
        "The other way round: share of captions whose own picture comes first.",
        "share",
    ),
    (
        "psnr",
        "Image tokenizer",
        "Fidelity of reconstructions",
        "Peak signal-to-noise ratio of new pictures after a trip through the tokens. "
        "More is better; 20 dB is an error of a tenth of the range, 30 dB of a 30th.",
        "dB",
    ),
    (
        "code_usage",
        "Image tokenizer",
        "Codes in use",
        "Share of the codebook that new pictures use. Codes that nobody uses are room "
        "wasted.",
        "share",
    ),
    (
        "prior_image_nats",
        "Prior",
        "Surprise at an image token",
        "Mean negative log likelihood of a new picture's token given its caption and "
        "the tokens before it. Less is better; the logarithm of the number of codes is "
        "knowing nothing.",
        "nats",
    ),
    (
        "prompts_new",
        "Samples and re-ranking",
        "New captions",
        "How many of the captions occur with no training picture, word for word. Their "
        "scenes are all new.",
        "number",
    ),
    (
        r"oracle_new_k(?P<k>\d+)",
        "Samples and re-ranking",
        "New captions drawn right, best of {k}",
        _RIGHT.format(what="picture") + "Captions that no training picture had; the "
        "one of {k} pictures that CLIP finds most like them, of 1 the first.",
        "share",
    ),
    (
        r"oracle_seen_k(?P<k>\d+)",
        "Samples and re-ranking",
        "Captions met in training drawn right, best of {k}",
        "The same of captions that training pictures had, word for word: what the "
        "prior knows by heart is among it.",
        "share",
    ),
    (
        "oracle_k1",
        "Samples and re-ranking",
        "Caption drawn right, first try",
        _RIGHT.format(what="first picture") + "Nothing is chosen.",
        "share",
    ),
    (
        r"oracle_k(?P<k>\d+)",
        "Samples and re-ranking",
        "Caption drawn right, best of {k}",
        "The same for the one of {k} pictures that CLIP finds most like the caption.",
        "share",
    ),
    (
        "oracle_unseen_k1",
        "Samples and re-ranking",
        "Unseen pairs drawn right, first try",
        "Captions of colour-shape pairs that no training picture showed: the first "
        "picture, by the same oracle.",
        "share",
    ),
    (
        r"oracle_unseen_k(?P<k>\d+)",
        "Samples and re-ranking",
        "Unseen pairs drawn right, best of {k}",
        "The same captions, the one of {k} pictures that CLIP finds most like them.",
        "share",
    ),
    (
        "completion_oracle",
        "Completions",
        "Lower half completed right",
        "Share of pictures that show all of their caption after the prior has drawn "
        "their lower half, given the caption and the upper half.",
        "share",
    ),
    (
        r"(?P<split>val|unseen)_oracle_all_k(?P<k>\d+)",
        "Oracle",
        "All right, best of {k}",
        "Every attribute at once; captions of {pairs}.",
        "share",
    ),
    (
        r"(?P<split>val|unseen)_oracle_(?P<attribute>[a-z_]+)_k(?P<k>\d+)",
        "Oracle",
        "Right {attribute}, best of {k}",
        "Of every object of the scene at once; captions of {pairs}.",
        "share",
    ),
    (
        r"(?P<split>val|unseen)_clip_score_best(?P<k>\d+)",
        "Judged by CLIP",
        "CLIP score, best of {k}",
        "The same of the picture that CLIP itself chose among {k}: how far choosing "
        "moves the score, not a fair judge of the result. Captions of {pairs}.",
        "number",
    ),
    (
        r"(?P<split>val|unseen)_clip_score",
        "Judged by CLIP",
        "CLIP score, all pictures",
        "Mean of 100 times the cosine of a picture with its caption, 0 where negative. "
        "Captions of {pairs}.",
        "number",
    ),
    (
        r"(?:clip_)?fid(?:_best\d+)?",
        "Likeness to real pictures",
        "Fréchet distance",
        "How far the drawn pictures as a set are from real ones, in the features of "
        "this demo's CLIP; 0 is none. Not to be compared with an FID over Inception "
        "features.",
        "number",
    ),
    (
        r"(?:clip_)?inception_score(?:_best\d+)?",
        "Likeness to real pictures",
        "Inception-like score",
        "How sure CLIP is of each picture's class and how many classes there are: 1 at "
        f"worst, {len(scene.CLASS_NAMES)} at best.",
        "number",
    ),
    (
        r"nearest(?:_best\d+)?",
        "Has it copied?",
        "Distance to the nearest training picture",
        "Of drawn pictures: root mean square difference of pixels, in shares of their "
        "range.",
        "number",
    ),
    (
        "nearest_real",
        "Has it copied?",
        "The same of real, held-out pictures",
        "What the distance is where nothing can have been copied. Drawn pictures much "
        "nearer than that would be suspicious.",
        "number",
    ),
    (
        r"near(?:_best\d+)?",
        "Has it copied?",
        "Unusually near to training",
        "Share of drawn pictures nearer to a training picture than all but the nearest "
        "5 % of the real ones: about 5 % where nothing is copied.",
        "share",
    ),
    (
        r"copies(?:_best\d+)?",
        "Has it copied?",
        "Copies",
        "Share of drawn pictures that look the same as a training picture.",
        "share",
    ),
    ("minutes", "Cost", "Time in all", "Wall clock of all stages.", "minutes"),
    (
        r"minutes_(?P<stage>\w+)",
        "Cost",
        "Time of {stage}",
        "Wall clock of this stage, compilation included.",
        "minutes",
    ),
    (
        "seconds_to_first_image",
        "Cost",
        "Seconds to the first image",
        "Until CLIP, a quarter trained, had ranked labels of pictures.",
        "number",
    ),
    ("cores", "Cost", "Processor cores", "That the machine has.", "number"),
    ("devices", "Cost", "Devices", "That JAX computed on.", "number"),
)


def meaning(name: str) -> Meaning:
    """What a name stands for; of an unknown one, nothing but the name itself."""
    for pattern, group, label, text, kind in _TABLE:
        match = re.fullmatch(pattern, name)
        if match:
            parts = match.groupdict()
            parts["pairs"] = SPLITS.get(parts.get("split", ""), "")
            label, text = label.format(**parts), text.format(**parts)
            if parts.get("k") == "1":  # the best of one is the first: nothing is chosen
                label = label.replace("best of 1", "first try")
            return Meaning(group, label, text.replace(" %", f"{SPACE}%"), kind)
    return Meaning(OTHER, name.replace("_", " "), "", "number")


def figures(values: Mapping[str, Any]) -> list[numbers.Figure]:
    """The values with their intervals and meanings."""
    return numbers.figures(values, meaning)
