"""Lists the presets of a config, or of all that mmjax ships, one a line."""

import argparse

EXAMPLE = """examples:
  mmjax presets
  mmjax presets configs/clip.py
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    text = "a config of mmjax, or a file of your own; a file is run, as Python: give "
    text += "none that you do not trust"
    parser.add_argument("place", nargs="?", metavar="CONFIG", help=text)


def run(args: argparse.Namespace) -> int:
    from mmjax.train import config as config_lib

    names = [args.place] if args.place else config_lib.shipped()
    for number, name in enumerate(names):
        about, presets = config_lib.presets(name)
        if number:
            print()
        print(f"{name}  {about}")
        width = max(map(len, presets), default=0)
        for preset, line in presets.items():
            print(f"  {preset:<{width}}  {line}".rstrip())
    print(f"\ntrain one with  mmjax train --config {name}:PRESET --workdir DIR")
    return 0
