"""The commands that README, docs/ and `mmjax VERB --help` print, in that order.

Pages of docs/ come in the order of the site's navigation, as a reader meets them.
"""

import argparse
import dataclasses
import importlib
import itertools
import os
import pathlib
import re
import shlex
from collections.abc import Iterator

import yaml

from mmjax import cli

ROOT = pathlib.Path(__file__).parents[2]
# A line of a code block, with those that a backslash joins to it; or, in a sentence, a
# span in backquotes that has more than a name. `mmjax data check` alone is a name.
_LINE = re.compile(
    r"^ +((?:mmjax|make|python|git|source) (?:[^\n]*\\\n)*[^\n]*)$"
    r"|`((?:mmjax|make|python) [^`]*(?:--|[:/=])[^`]*)`",
    re.MULTILINE,
)


# What a reader brings along. Beginnings of names count too.
USERS = {
    "pictures": "photo.jpg cat.jpg cat.png woman.png red_circle.png photos",
    "sentences": "captions.txt",
    "CLIP benchmark's table": "benchmark.csv",
    "released weights": "hf:/ ~/models/ ViT-B-32.pt ViT-L-14.pt last.ckpt "
    "open_clip_model.safetensors vqgan_imagenet_f16_1024/last.ckpt",
}


MAKERS = (
    "train",
    "demo",
    "finetune",
    "sweep",
    "reproduce",
)  # of a workdir, which they name


@dataclasses.dataclass(frozen=True)
class Command:
    """place: file and line, or the verb whose --help it is. words: as a shell has them,
    of the first command of a line."""

    place: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.place}: {shlex.join(self.words)}"


def navigation(tab: str = "") -> list[str]:
    """The pages of mkdocs.yml, or of one tab, as paths below docs/, in its order."""
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    return list(_leaves([part for part in nav if not tab or tab in part]))


def _leaves(part: str | dict | list) -> Iterator[str]:
    if isinstance(part, str):
        yield part
    else:
        inner = part.values() if isinstance(part, dict) else part
        yield from itertools.chain.from_iterable(map(_leaves, inner))


def printed() -> list[Command]:
    """All of them: README first, then docs/, then the verbs."""
    listed = [ROOT / "README.md", *(ROOT / "docs" / name for name in navigation())]
    files = dict.fromkeys([*listed, *sorted((ROOT / "docs").rglob("*.md"))])
    pages = [(str(file.relative_to(ROOT)), file.read_text("utf-8")) for file in files]
    for verb in sorted(cli.verbs()):
        module = importlib.import_module(f"mmjax.cli.{verb}")
        pages.append((f"mmjax {verb} --help", module.EXAMPLE))
    return [command for page in pages for command in of(*page)]


def of(name: str, text: str) -> Iterator[Command]:
    """The commands of one page."""
    for found in _LINE.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        words = split(found[1] or found[2])
        if words:
            yield Command(f"{name}:{line}", words)


def split(text: str) -> tuple[str, ...]:
    """What a shell makes of a line, up to a pipe or another command."""
    joined = os.path.expandvars(text.replace("\\\n", " "))
    kept = re.sub(r"(?<=\S)#", "\0", joined)  # inside a word it begins no comment
    words = [word.replace("\0", "#") for word in shlex.split(kept, comments=True)]
    ends = [i for i, word in enumerate(words) if word in ("|", "&&")]
    return tuple(words[: ends[0]] if ends else words)


def needs(verb: str, args: argparse.Namespace) -> list[pathlib.PurePath]:
    """The paths that a command reads: runs, indexes, pictures, weights, tables."""
    held = vars(args)
    kept = ["workdir"] if verb not in MAKERS else []
    names = [held.get(name) for name in [*kept, "clip", "index", "image", "adapter"]]
    names += held.get("beside") or []
    names += held.get("images") or []
    names += held["runs"] if verb in ("app", "compare") else []
    names += [text for text in held.get("texts") or [] if text.endswith(".txt")]
    names += held.get("reference") or []
    names += [args.places[-1]] if verb == "eval" else []
    names += [args.source] if verb in ("convert", "finetune") and args.source else []
    for text in held.get("overrides") or []:
        key, _, value = text.partition("=")
        run = value.partition("#")[0]  # RUN, or RUN#part/of/it
        names += [run] if key.startswith("--config.graft.") else []
    return [pathlib.PurePath(name) for name in names if name]


def makes(verb: str, args: argparse.Namespace) -> list[pathlib.PurePath]:
    """The paths that a command leaves for others."""
    if verb == "convert":
        return [args.target] if args.target else []
    names = [args.workdir] if verb in MAKERS and args.workdir else []
    if verb == "finetune":
        names += [args.workdir / name for name in ("merged", "adapter.safetensors")]
    return names + [out for out in [vars(args).get("out")] if out]
