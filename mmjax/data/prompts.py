"""Prompt templates: sentences with a `{}` where a class name goes.

Named sets are CLIP's own: `clip80` (the 80 ImageNet templates), `clip7` (the seven
of them that its authors' greedy search kept) and one set per evaluation data set
(`cifar10`, `gtsrb`, ...), from data/templates/clip.json. `plain` is the bare name,
`photo` the one sentence of Radford et al. 2021, section 3.1.4, and `shapes` is for the
embedded data: sentences that its captions hold.
"""

import functools
import hashlib
import importlib.resources
import json
import pathlib
import re
from collections.abc import Iterable, Sequence

from mmjax import schema
from mmjax.errors import UserError

SLOT = "{}"
_CLIP_BENCHMARK = "{c}"  # its files' slot
_BUILT_IN = {
    "plain": (SLOT,),
    "photo": (f"a photo of a {SLOT}.",),
    "shapes": ("a {}", "a photo of a {}", "a drawing of a {}", "one {}"),
}


@functools.cache
def sets() -> dict[str, tuple[str, ...]]:
    """Every named set of templates."""
    file = importlib.resources.files("mmjax.data") / "templates" / "clip.json"
    shipped = json.loads(file.read_text(encoding="utf-8"))["sets"]
    return _BUILT_IN | {name: tuple(listed) for name, listed in shipped.items()}


def load(templates: str | Sequence[str]) -> tuple[str, ...]:
    """Templates from a set's name, a file, one sentence with `{}`, or a list.

    A file is `.txt` (a template a line) or `.json` (a list; or a mapping of named
    lists, of which `prompts.json#name` takes one), with `{}` or `{c}` in each: so the
    files of LAION's CLIP benchmark, one a language, can be given as they are. Those
    with `{c}` may hold a template twice, which then counts twice, as it does there.

    Raises:
      UserError: no such set (names the nearest) or file; a template without `{}`;
        the same template twice; none at all.
    """
    if not isinstance(templates, str):
        return _checked(tuple(templates), "templates")
    if templates in sets():
        return sets()[templates]
    if templates.partition("#")[0].endswith((".txt", ".json")):
        sentences = read_list(templates)
        if not any(_CLIP_BENCHMARK in t for t in sentences):
            return _checked(sentences, templates)
        sentences = tuple(t.replace(_CLIP_BENCHMARK, SLOT) for t in sentences)
        _checked(tuple(dict.fromkeys(sentences)), templates)
        return sentences
    if SLOT in templates:
        return (templates,)
    hint = schema.suggest(templates, sets())
    raise UserError(
        f"no prompt set is called {templates!r}{hint}; or give a .txt or .json file, "
        "or a list of sentences that hold {}"
    )


def labels(text: str) -> list[str]:
    """Two labels or more, of `a, b, c` or of lines; UserError where two are equal."""
    named = [label.strip() for label in re.split("[,\n]", text) if label.strip()]
    if len(set(named)) < 2 or len(set(named)) < len(named):
        raise UserError(f"labels {text!r}: give two or more that differ")
    return named


def read_list(place: str) -> tuple[str, ...]:
    """Strings of a `.txt` (one a line) or `.json` file; `file.json#name` picks a list.

    Raises:
      UserError: the file is missing, is not UTF-8, not JSON, or holds no such list.
    """
    name, _, part = str(place).partition("#")
    path = pathlib.Path(name).expanduser()
    if not path.is_file():
        raise UserError(f"{name}: no such file")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: not UTF-8 ({error})") from error
    if path.suffix != ".json":
        return tuple(line.strip() for line in text.splitlines() if line.strip())
    try:
        listed = schema.parse_json(text)
    except ValueError as error:
        raise UserError(f"{name}: not JSON ({error})") from error
    if isinstance(listed, dict):
        if part not in listed:
            hint = schema.suggest(part, listed)
            raise UserError(f"{name}: holds no list called {part!r}{hint}")
        listed = listed[part]
    if not isinstance(listed, list) or not all(isinstance(t, str) for t in listed):
        raise UserError(f"{place}: expected a list of strings")
    return tuple(listed)


def fill(templates: Sequence[str], names: Iterable[str]) -> list[str]:
    """Every template with every name, all the sentences of one name side by side."""
    # not str.format: a name or a template may hold braces of its own
    return [template.replace(SLOT, name) for name in names for template in templates]


def sha256(texts: Sequence[str]) -> str:
    """Identifies a list of strings, in its order."""
    data = json.dumps(list(texts), ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(data.encode("utf-8", "surrogatepass")).hexdigest()


def _checked(templates: tuple[str, ...], where: str) -> tuple[str, ...]:
    if not templates:
        raise UserError(f"{where}: no templates; give at least one, such as '{SLOT}'")
    for template in templates:
        if not isinstance(template, str) or SLOT not in template:
            raise UserError(f"{where}: {template!r} has no {SLOT} for the class name")
    twice = {t for t in templates if templates.count(t) > 1}
    if twice:
        raise UserError(f"{where}: {min(twice)!r} is given twice")
    return templates
