"""Writes the texts of the bridging experiment: no German or French line has an image.

    python experiments/bridging/prepare.py --data $MMJAX_DATA --out runs/bridging

text.jsonl: English, German and French lines of Multi30k whose images no split of our
Flickr8k has. test.jsonl: German and French captions of Flickr8k's dev images, by key.

Multi30k translates captions of Flickr30k, which holds most of Flickr8k: an image's
number is the first part of its Flickr8k key.
"""

import argparse
import gzip
import json
import pathlib
import tarfile
from collections.abc import Iterator, Mapping


def keys(data: pathlib.Path, split: str) -> list[str]:
    """The keys of a split's images."""
    found = []
    for shard in sorted((data / "flickr8k").glob(f"flickr8k-{split}-*.tar")):
        with tarfile.open(shard) as tar:
            names = [name for name in tar.getnames() if name.endswith(".json")]
        found += [name.removesuffix(".json") for name in names]
    return found


def lines(path: pathlib.Path) -> Iterator[list[str]]:
    """The cells of a gzipped table, without its header."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        next(file)
        for line in file:
            yield line.rstrip("\n").split("\t")


def write(path: pathlib.Path, records: list[Mapping]) -> None:
    text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records)
    path.write_text(text, encoding="utf-8")
    print(f"{path}: {len(records)} records")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    train, dev = (keys(args.data, split) for split in ("train", "dev"))
    number = {key.partition("_")[0]: key for key in (*train, *dev)}
    apart, shared = [], {}
    for image, en, de, fr in lines(
        args.data / "text" / "multi30k_train_en_de_fr.tsv.gz"
    ):
        name = image.removesuffix(".jpg")
        if name in number:
            shared[number[name]] = {"de": de, "fr": fr}
        else:
            apart.append({"en": en, "de": de, "fr": fr})
    write(args.out / "text.jsonl", apart)
    test = [{"key": key, **shared[key]} for key in dev if key in shared]
    write(args.out / "test.jsonl", test)


if __name__ == "__main__":
    main()
