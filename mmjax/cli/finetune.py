"""Fine-tunes a run, or public weights, on data of your own by a recipe.

FROM is a run, hf://ORG/NAME, or files that `mmjax convert` reads. Its tokenizer,
activation and preprocessing come along. Images with class names and no captions get
captions from templates. Run the same command again to go on where it stopped.

At the end it judges other sets zero-shot with the weights before and after, and says
what was forgotten: WORKDIR/forgotten.md, .json and .png. Adapters are written alone, as
WORKDIR/adapter.safetensors, and merged, as the run WORKDIR/merged.
"""

import argparse
import pathlib
import sys
from typing import Any

from mmjax.cli.train import add_devices
from mmjax.errors import UserError
from mmjax.parallel import distributed

EXAMPLE = """examples:
  mmjax finetune runs/demo/clip --workdir runs/mine --data "folder:/photos?label=parent"
  mmjax finetune runs/demo/clip --recipe lora --workdir runs/lora \\
      --data "folder:/photos?label=parent&part=train" \\
      --test "folder:/photos?label=parent&part=held_out" --others suites:shapes
  mmjax finetune hf://openai/clip-vit-base-patch32 --recipe wise --workdir runs/wise \\
      --data "webdataset:/data/x-*.tar" --config.optim.lr=1e-5
  mmjax finetune runs/demo/clip --adapter runs/lora/adapter.safetensors \\
      --workdir runs/again
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar="FROM", help="a run, hf://ORG/NAME, or weights in files")
    add("--workdir", required=True, type=pathlib.Path, metavar="DIR")
    add("--data", metavar="SOURCE", help="what to train on")
    text = "a preset of configs/recipes.py (full, wise, lit, lora, lpft, coop), or a "
    text += "file of your own, my/recipes.py:NAME, which is run, as Python: give none "
    text += "that you do not trust"
    add("--recipe", default="full", metavar="NAME", help=text)
    add("--test", default="", metavar="SOURCE", help="the same classes, to judge by")
    text = "sentences around class names: a set, a file, or a sentence with {}; "
    text += "default: those of FROM's own zero-shot evaluation, or photo"
    add("--templates", default="", metavar="NAME", help=text)
    text = "a suite of other sets (default: FROM's own evaluators)"
    add("--others", default="", metavar="SUITE", help=text)
    add("--limit", type=int, metavar="N", help="examples of each of them, at most")
    text = "also write the run DIR/alpha-A, with weights between before (0) and after"
    add("--alpha", type=float, metavar="A", help=text)
    text = "draw this fine-tuned run beside; may be given again"
    add("--beside", action="append", default=[], type=pathlib.Path, help=text)
    text = "merge this adapter into FROM, and train nothing"
    add("--adapter", type=pathlib.Path, metavar="FILE", help=text)
    add_devices(parser)
    distributed.add_arguments(parser)
    parser.set_defaults(overrides=[])


def run(args: argparse.Namespace) -> int:
    if (args.adapter is None) == (args.data is None):
        raise UserError("give --data to train on, or --adapter to merge; not both")
    if args.limit is not None and args.limit < 1:
        raise UserError(f"--limit is {args.limit}: use 1 or more")
    if args.alpha is not None and not 0 <= args.alpha <= 1:
        raise UserError(f"--alpha is {args.alpha}: use 0 to 1")
    with distributed.session(args):
        from mmjax.finetune import adapter, forgotten
        from mmjax.parallel import processes
        from mmjax.train import loop

        beside = {folder.name: forgotten.read(folder) for folder in args.beside}
        start = adapter.opened(args.workdir, args.source)
        if args.adapter:
            return _merge(start, args)
        try:
            return _train(start, args, beside)
        except loop.Interrupted as e:
            if processes.writer():
                print(f"mmjax: {e}; run the same command to go on", file=sys.stderr)
            return e.status()


def _merge(start: Any, args: argparse.Namespace) -> int:
    from mmjax.finetune import adapter
    from mmjax.train import run_file

    if run_file.exists(args.workdir):
        raise UserError(f"{args.workdir} is a run already: give another workdir")
    variables = adapter.apply(start, args.adapter)
    saved = adapter.saved_fields(start.parts)
    where = {"start": start.workdir}
    print(adapter.write_run(start.config, saved, variables, args.workdir, **where))
    return 0


def _train(start: Any, args: argparse.Namespace, beside: dict[str, Any]) -> int:
    from mmjax.data import prompts
    from mmjax.finetune import adapter, forgotten
    from mmjax.finetune import recipe as recipe_lib
    from mmjax.inference import load
    from mmjax.parallel import processes
    from mmjax.report import forgotten_figure
    from mmjax.train import loop

    recipe = recipe_lib.read(args.recipe)
    templates = prompts.load(args.templates or start.templates())
    given = {"templates": templates, "test": args.test, "overrides": args.overrides}
    plan = recipe_lib.plan(start, recipe, args.data, args.workdir, **given)
    sets = recipe_lib.others(start, args.others, args.limit)
    if args.test:
        target = {"type": "zero_shot", "source": args.test, "templates": templates}
        sets = {forgotten.TARGET: target, **sets}
    last: dict[str, float] = {}
    for folder, config in plan.stages:
        last = loop.run(config, folder, label=folder.name)
    tuned = load.load_run(args.workdir)
    held = forgotten.weights(plan, tuned.parts, tuned.state)
    lines = []
    config = plan.plain.copy_and_resolve_references().unlock()
    config.evals = sets
    saved, where = adapter.saved_fields(tuned.parts), {"start": start.workdir}
    chosen = {} if args.alpha is None else {f"alpha-{args.alpha:g}": args.alpha}
    if hasattr(tuned.task, "merged"):
        chosen["merged"] = 1.0
        lines.append(f"adapter: {adapter.save(tuned, start)}")
    for name, alpha in chosen.items():
        variables, folder = held.between(alpha), args.workdir / name
        made = adapter.write_run(config, saved, variables, folder, **where)
        lines.append(f"run: {made}")
    if sets:
        rows = forgotten.measure(held, sets, recipe.alphas)
        about = {"from": str(start.workdir), "fingerprint": start.fingerprint}
        about |= {"recipe": args.recipe, "step": tuned.step, "last": last}
        table = forgotten.write(args.workdir, rows, about)
        if processes.writer():
            runs = {args.workdir.name: rows, **beside}
            place = args.workdir / "forgotten.png"
            forgotten_figure.draw(runs, place, target=forgotten.TARGET)
            lines += [table, f"figure: {place}"]
    else:
        lines.append("nothing to judge by: give --test or --others")
    if processes.writer():
        print("\n".join(lines))
    return 0
