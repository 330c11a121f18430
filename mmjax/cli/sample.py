"""Draws images for prompts from a trained generator: a PNG grid, and JSON beside it.

A prompt is a text, or the number of a label where the model was trained on labels.
Candidate number c of a prompt is the same image whatever -k is. With --clip, a
trained contrastive run, the candidates are shown best first. After --help, a WORKDIR
has what --set may change of it listed.
"""

import argparse
import ast
import inspect
import json
import pathlib
from typing import Any

from mmjax import errors, schema
from mmjax.cli.train import add_devices
from mmjax.errors import UserError, image_name
from mmjax.parallel import runtime

EXAMPLE = """examples:
  mmjax sample demo "a small red star above a blue ring"
  mmjax sample runs/demo/prior "a small red star above a blue ring" -k 64 --seed 0
  mmjax sample runs/demo/prior "a red star" "a blue ring" -k 64 \\
      --clip runs/demo/clip --top 8 --out best.png
  mmjax sample runs/demo/prior "a red star" --set temperature=0.7 --set top_p=0.9
  mmjax sample runs/diffusion "a red star" --negative "a blue ring" --set guidance=3
  mmjax sample runs/diffusion "a red star" --start photo.jpg --set strength=0.6
"""


OWN_HELP = True  # argparse's own --help takes no run


class _Help(argparse.Action):
    """Prints the help, and the sampling options of a run that is named after it."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        parser.print_help()
        if values is not None:
            print(f"\n{_options_of(pathlib.Path(values))}")
        parser.exit()


def _options_of(workdir: pathlib.Path) -> str:
    """What --set may change of a run, and what it is there."""
    from mmjax.tasks import base
    from mmjax.train import config, run_file

    task = base.build(config.from_json(run_file.read(workdir)["config"]).task)
    options = base.sampling_options(task)
    if not options:
        raise UserError(f"{workdir} holds a model that draws no images")
    lines = (f"  {name}={value}" for name, value in options.items())
    about = inspect.getdoc(type(task.sampling))
    return "\n".join([f"--set, as {workdir} has it:", *lines, "", about])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    text = "this help; with a run, also what --set may change of it"
    parser.add_argument(
        "-h", "--help", action=_Help, nargs="?", metavar="WORKDIR", help=text
    )
    parser.add_argument("workdir", type=pathlib.Path, metavar="WORKDIR")
    parser.add_argument("prompts", nargs="+", metavar="PROMPT")
    text = "what the images should not show (diffusion models, with guidance)"
    parser.add_argument("--negative", default="", metavar="TEXT", help=text)
    text = "an image to begin from, as far as strength says (diffusion models)"
    parser.add_argument("--start", type=pathlib.Path, metavar="IMAGE", help=text)
    add_options(parser, default="sample.png")


def add_options(parser: argparse.ArgumentParser, *, default: str) -> None:
    """What `sample` and `complete` share."""
    add = parser.add_argument
    add("-k", type=int, default=8, help="candidates (default: 8)")
    add("--seed", type=int, default=0)
    add("--clip", type=pathlib.Path, metavar="WORKDIR")
    add("--top", type=int, metavar="N", help="show the N best only; needs --clip")
    add("--out", type=image_name, default=pathlib.Path(default), metavar="FILE.png")
    text = "an option of the model's own sampling, such as temperature=0.7, top_k=64 "
    text += "or guidance=3; may be repeated"
    add("--set", action="append", default=[], metavar="KEY=VALUE", help=text)
    add("--batch", type=int, default=64, metavar="N", help="candidates in a call")
    add("--step", type=int, help="a saved step (default: the newest)")
    add("--dtype", default="", metavar="NAME", help="of weights, such as bfloat16")
    add_devices(parser)


def run(args: argparse.Namespace) -> int:
    clip, generator = begin(args)
    more: dict[str, Any] = {"negative": args.negative}
    if args.start is not None:
        from mmjax.inference import load

        more["start"] = [load.read_image(args.start)] * len(args.prompts)
    with progress(len(args.prompts) * args.k) as bar:
        drawn = generator.sample(
            args.prompts, k=args.k, seed=args.seed, tick=bar.update, **more
        )
    given = {"negative": args.negative, "start": str(args.start or "")}
    return finish(args, generator, drawn, clip, extra=given)


def begin(args: argparse.Namespace) -> tuple[Any, Any]:
    """(the contrastive run or None, the generator), after checking the options."""
    if args.top is not None and args.clip is None:
        raise UserError("--top ranks by a contrastive run: name it with --clip WORKDIR")
    if args.top is not None and not 1 <= args.top <= args.k:
        raise UserError(f"--top {args.top} of -k {args.k}: give 1 to {args.k}")
    if args.k < 1:
        raise UserError(f"-k {args.k}: ask for one candidate or more")
    runtime.configure(devices=args.devices)
    from mmjax.inference import generate, load, pretrained

    prior = load.load_run(pretrained.place(args.workdir), args.step, args.dtype)
    options = dict(map(option, args.set))
    generator = generate.Generator(prior, sampling=options, batch=args.batch)
    clip = args.clip and load.load_run(pretrained.place(args.clip))
    if prior.tokenizer is None:
        args.prompts = [int(p) if p.isdigit() else p for p in args.prompts]
    generator.check_prompts(args.prompts)
    for prompt in args.prompts:
        spelled = generator.pieces(prompt) if isinstance(prompt, str) else {}
        if spelled:
            words = ", ".join(f"{word!r} in {many}" for word, many in spelled.items())
            print(f"note: spelled in pieces, perhaps never seen in training: {words}")
    return clip, generator


def option(text: str) -> tuple[str, Any]:
    """(name, value) of KEY=VALUE; what is no number, truth or tuple is a string."""
    name, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--set {text}: give it as --set KEY=VALUE")
    try:
        return name, ast.literal_eval(value)
    except schema.NO_LITERAL:
        return name, {"true": True, "false": False}.get(value, value)


def progress(total: int) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, unit="image", dynamic_ncols=True, disable=None)


def finish(
    args: argparse.Namespace,
    generator: Any,
    drawn: Any,
    clip: Any,
    *,
    shown: list | None = None,
    extra: dict | None = None,
) -> int:
    """Ranks, draws and writes; `shown`: images that lead each row."""
    import numpy as np

    from mmjax.inference import generate
    from mmjax.report import image_grid

    order_pk = np.tile(np.arange(args.k), (len(drawn.prompts), 1))
    numbers = {k: v for k, v in drawn.arrays.items() if k not in ("image", "audio")}
    if clip is not None:
        image_pkd, text_pd = generate.embeddings(clip, drawn)
        numbers["clip"] = np.einsum("pkd,pd->pk", image_pkd, text_pd)
        order_pk = np.argsort(-numbers["clip"], axis=1, kind="stable")
    rows, captions, report = [], [], []
    for p, (prompt, order_k) in enumerate(zip(drawn.prompts, order_pk, strict=True)):
        best = order_k[: args.top or args.k].tolist()
        images = [*(shown[p : p + 1] if shown else []), *drawn.images[p, best]]
        lines = [images[i : i + 16] for i in range(0, len(images), 16)]
        rows += lines
        captions += [str(prompt)] + [""] * (len(lines) - 1)
        listed = [
            {"candidate": c} | {k: v[p, c].tolist() for k, v in numbers.items()}
            for c in best
        ]
        report.append({"prompt": prompt, "shown": listed})
    png = image_grid.draw(args.out, rows, captions)
    about = {
        "workdir": str(args.workdir),
        "clip": str(args.clip) if args.clip else None,
        "seed": args.seed,
        "k": args.k,
        "sampling": generator.options,
        **(extra or {}),
        "prompts": report,
    }
    beside = png.with_suffix(".json")
    with errors.writing(beside) as part:
        part.write_text(json.dumps(about, indent=1) + "\n")
    print(f"image    {png}\nnumbers  {beside}")
    return 0
