"""Every command of README, docs/ and `--help`: as printed, in the order printed.

All of them pass the real parsers and configs, and what they name is there: made by a
command before, or a file of the reader's. `make test-docs` runs them, made small.
"""

import pathlib
import re

import commands
import pytest

from mmjax import cli
from mmjax.claims import spec
from mmjax.cli import eval as eval_cli
from mmjax.errors import UserError
from mmjax.suite import cells
from mmjax.train import config as config_lib

ROOT = commands.ROOT
DEMO = {  # what `make demo` trains
    "demo": "prior:shapes",  # by name, from wherever there is one
    "demo/clip": "clip:shapes",
    "runs/demo/clip": "clip:shapes",
    "runs/demo/tokenizer": "vqvae:shapes",
    "runs/demo/prior": "prior:shapes",
}


@pytest.fixture(scope="module", autouse=True)
def data():
    """The variable that README asks for; nothing is read from it here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMJAX_DATA", "/data")
        patch.chdir(ROOT)
        yield


def test_every_command_is_one_and_names_what_is_there():
    made, wrong = {}, []
    for command in commands.printed():
        try:
            check(command.words, made)
        except (UserError, AssertionError) as error:
            wrong.append(f"{command}\n    {str(error).splitlines()[0]}")
    assert not wrong, "\n".join(wrong)
    assert len(made) > 30


def test_a_command_that_does_not_run_is_found():
    text = "\n    mmjax train --config clip:tinny --workdir runs/x\n`mmjax data check`"
    text += "\n    mmjax zeroshot runs/demo x.png \\\n        --labels a,b   # no run"
    text += "\n    mmjax embed --images a.png\nsee `mmjax eval RUN --evals val`, and"
    text += "\n    make demos\n    python benchmarks/turns.py --no-such-option\n"
    found = list(commands.of("page", text))
    places = [command.place for command in found]
    assert places == [f"page:{line}" for line in (2, 4, 6, 7, 8, 9)]
    wrong = ["no preset 'tinny'", "runs/demo is not made", "arguments are required"]
    wrong += ["RUN is not made", "no target demos", "--no-such-option"]
    for command, why in zip(found, wrong, strict=True):
        with pytest.raises((UserError, AssertionError), match=why):
            check(command.words, {})


def check(words, made):
    """Raises where a command would not be taken; `made` (name: its config) grows."""
    kind, *rest = words
    if kind == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
        assert rest[0] in targets, f"no target {rest[0]}"
        made.update(DEMO if rest[0] == "demo" else {})
        made.update({"runs/demo/scene.png": ""} if "demo" in rest[0] else {})
    elif kind == "python":
        text = (ROOT / rest[0]).read_text()
        for name in rest:
            assert not name.startswith("--") or f'"{name}"' in text, name
    elif kind == "source":
        assert rest == [".venv/bin/activate"]
    elif kind == "mmjax":
        _check(rest[0], rest[1:], made)
    else:
        assert kind == "git"


def _check(verb, words, made):
    args, _ = cli._parse(verb, words)
    for name in commands.needs(verb, args):
        is_users = str(name).startswith(
            tuple(" ".join(commands.USERS.values()).split())
        )
        at = name.parents[1] if name.parent.name == "checkpoints" else name
        assert is_users or str(at) in made, f"{name} is not made by a command before"
    config = getattr(args, "config", None)
    if config:
        config_lib.load(config, args.overrides)
    if getattr(args, "claim", None):
        spec.read(spec.find(args.claim, ROOT / spec.FOLDER)).at(args.scale)
    if verb == "launch":
        return check(["mmjax", *args.command, *args.overrides], made)
    if verb == "eval":
        suite, place = [None, *args.places][-2:]
        if suite is None:
            args.workdir = place
            eval_cli._choose(config_lib.load(made[place], []), args)
        elif suite != "compare":
            config_lib.load(suite, args.overrides, kind=cells.Suite)
            name = suite.partition(":")[2] or pathlib.Path(suite).stem
            made[f"{place}/evals/{name}"] = ""
    for name in commands.makes(verb, args):
        made[str(name)] = config or ""


def test_every_verb_has_examples():
    places = {command.place.partition(":")[0] for command in commands.printed()}
    assert {f"mmjax {verb} --help" for verb in cli.verbs()} <= places
