"""Public weights to a run of ours, and runs to public weights.

FROM is a file (safetensors, .pt, .bin), a folder as Hugging Face keeps them, hf://ORG/NAME
or a workdir. A workdir is written out, in the format of --to (by default the one it
came from); anything else becomes a workdir TO, which zeroshot, embed, eval and
notebook.load_run open. Nothing in a file is run, and every array has to find its place.
"""

import argparse
import pathlib

from mmjax.errors import UserError
from mmjax.parallel import runtime

EXAMPLE = """examples:
  mmjax convert hf://openai/clip-vit-base-patch32 runs/b32 --check
  mmjax convert ViT-B-32.pt runs/openai
  mmjax convert open_clip_model.safetensors runs/open --json ViT-B-32-quickgelu.json
  mmjax convert runs/b32 exported/ --to hf_clip --step 0
  mmjax convert --list
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar="FROM", nargs="?")
    add("target", metavar="TO", nargs="?", type=pathlib.Path)
    add("--to", metavar="FORMAT", help="what to write a workdir as")
    add("--from", dest="family", metavar="FORMAT", help="what to read FROM as")
    text = "the model config of weights that come without one"
    add("--json", type=pathlib.Path, metavar="FILE", help=text)
    add("--step", type=int, help="a saved step (default: the newest)")
    text = "compare outputs with the original library's, which has to be installed"
    add("--check", action="store_true", help=text)
    add("--list", action="store_true", help="show the formats there are")
    parser.set_defaults(overrides=[])


def run(args: argparse.Namespace) -> int:
    runtime.configure()
    from mmjax.convert import formats, import_export
    from mmjax.train import run_file

    if args.list:
        for name in formats.names():
            print(f"  {name:<14} {formats.find(name).ABOUT}")
        return 0
    if args.source is None or args.target is None:
        raise UserError("give FROM and TO; see mmjax convert --help")
    places = args.source, args.target
    if run_file.exists(args.source):
        if args.overrides or args.family or args.json:
            raise UserError(f"{args.source} is a run: --to FORMAT and --step alone fit")
        done = import_export.write_out(*places, args.to, args.step)
    else:
        if within := run_file.inside(args.source):
            raise UserError(f"{args.source} is not a run of mmjax{within}")
        if args.to or args.step is not None:
            raise UserError(
                f"{args.source} is not a run, and becomes one: --to and --step are for "
                "writing a run out"
            )
        options = {"family": args.family, "config": args.json}
        done = import_export.bring_in(*places, **options, overrides=args.overrides)
    print("\n".join(done.lines))
    if args.check:
        print("outputs against the original's, on a few random rows")
        for name, (far, relative) in import_export.check(done).items():
            print(f"  {name:<12} max abs {far:.2e}   max rel {relative:.2e}")
    return 0
