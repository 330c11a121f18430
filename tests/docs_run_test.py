"""Runs what README, docs/ and `--help` print, in that order, in an empty folder.

The commands are as printed but for SMALL: presets become `tiny` and numbers small. What
needs data, weights or packages from elsewhere is left out, with its reason, and so is
what builds on it. `make test-docs`, some ten minutes on two cores.
"""

import io
import os
import pathlib
import re
import subprocess
import sys
import tarfile

import commands
import numpy as np
import pytest
from PIL import Image

from mmjax import cli
from mmjax.data.sources import open_source
from mmjax.train import config as config_lib

SMALL = (  # (what is printed, what is run), of a word
    (r"^(?:configs/)?(alignment|clip|df_gan|prior|vqvae)(?:\.py)?:\w+$", r"\1:tiny"),
    (r"^configs/suites\.py:bundle$", "suites:tiny"),
    (r"/evals/bundle$", "/evals/tiny"),
    (r"^(shapes:(?:val|train))$", r"\1?size=16&count=64"),
    (r"^shapes:val\?objects=1$", "shapes:val?size=16&count=64&objects=1"),
    (r"^(.*)/checkpoints/\d+$", r"\1/checkpoints/4"),
    (r"^/(data|photos|shared)\b", r"\1"),
    (r"(:|=)/(data|photos)\b", r"\1\2"),
)
OPTIONS = {  # of numbers that are too large for what is trained here
    "-k": "8",
    "--rows": "8",
    "--step": "4",
    "--profile": "2:3",
    "--vocab-size": "300",
    "--top": "4",
    "--bits": "16",
}
LONG = ("steps", "evals.", "optim.warmup", "checkpoint.every", "task.loss_block")
STAGE1 = [  # as the emoji presets do, the prior takes what vqvae:tiny makes
    "--config.task.stage1.vocab_size=16",
    "--config.task.stage1.net.widths=(16,)",
    "--config.task.stage1.code_dim=8",
]
LEFT_OUT = {  # words of a command: why it isn't run
    "mmjax app": "it serves until it is stopped",
    "judge serve": "it serves until it is stopped",
    "git": "it fetches this repository",
    "make test": "these tests",
    "benchmarks/": "minutes, and a machine of its own",
    "hf://": "the network",
    ".pt": "released weights",
    "~/models": "released weights",
    "open_clip_model": "released weights",
    "last.ckpt": "released weights",
    "--check": "the original libraries",
    "--manual-dir": "the files of MNIST",
    "data get": "public sets, downloaded",
    "wav:": "recordings",
    "benchmark.csv": "CLIP benchmark's table",
    "experiments/": "five sets of images",
    "--scale small": "an hour or more",
    "--evals imagenet": "ImageNet",
    "--evals probe": "a labelled set of photos",
    "gs://": "a bucket",
    "s3://": "a bucket",
    "index faiss": "the extra `faiss`",
    "--probes": "the extra `faiss`",
    "--coordinator": "a second host",
    "--record 1429": "all 1,471 emoji",
    "tiny_imagenet": "a set of images",
    "adversarial.py:flickr8k": "the classifier of that set",
}


def small(words):
    """The words of a command as it is run here."""
    made = list(words)
    if words[1:2] == ("plan",):  # as printed: no array is made
        return made
    for pattern, to in SMALL:
        made = [re.sub(pattern, to, word) for word in made]
    for name, value in OPTIONS.items():
        made = [
            value if before == name else word
            for before, word in zip(["", *made], made, strict=False)
        ]
    if words[1:2] == ("finetune",) and "--adapter" not in words:
        made += ["--config.steps=2", "--config.optim.warmup=1", "--limit=8"]
        made += ["--config.batch_size=4"]
    elif "train" in words or words[1:2] == ("launch",):
        long = tuple(f"--config.{key}" for key in LONG)
        made = [word for word in made if not word.startswith(long)]
        made += ["--config.steps=4", "--config.checkpoint.every=2"]
        spec = made[made.index("--config") + 1]
        family = spec.partition(":")[0].removeprefix("configs/").removesuffix(".py")
        # run by `mmjax eval` alone, for time
        evals = config_lib.load(spec, []).get("evals", {})
        made += [f"--config.evals.{name}.every=0" for name in evals]
        made += STAGE1 if family == "prior" else []
    return made + (["--plan", "tiny"] if words[1:2] == ("demo",) else [])


def reason(command, missing):
    """Why a command isn't run; "" where it is. `missing`: what would have been made."""
    text = " ".join(command.words)
    for part, why in LEFT_OUT.items():
        if part in text:
            return why
    if command.words[0] != "mmjax":
        return ""
    verb, *words = command.words[1:]
    args, _ = cli._parse(verb, words)
    names = [str(name) for name in commands.needs(verb, args)]
    return next((f"{n}, left out above" for n in names if n in missing), "")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with what a reader has: the checkout's files, pictures and shards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMJAX_DATA", "data")
    for name in ("configs", "experiments", "docs", "README.md"):
        pathlib.Path(name).symlink_to(commands.ROOT / name)
    source = open_source("shapes:train?size=32&count=64")
    pathlib.Path("data/emoji").mkdir(parents=True)
    for name in ("data/x-0.tar", "data/emoji/noto128-shared.tar"):
        with tarfile.open(name, "w") as tar:
            for i, record in enumerate(source):
                image = io.BytesIO()
                Image.fromarray(record["image"]).save(image, "JPEG")
                for suffix, data in {
                    "jpg": image.getvalue(),
                    "json": b'{"caption": "%s"}' % record["text"][0].encode(),
                }.items():
                    member = tarfile.TarInfo(f"{i:03d}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    names = [n for n in commands.USERS["pictures"].split() if n.endswith(("g", "f"))]
    names += [f"photos/{kind}/{i}.png" for kind in ("red", "blue") for i in range(4)]
    for name, record in zip(names, source, strict=False):
        pathlib.Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(record["image"]).save(name)
        if "photos/" in name:
            pathlib.Path(name).with_suffix(".txt").write_text(record["text"][0])
    walk = np.random.default_rng(0).normal(size=(60, 2)).cumsum(0)
    np.save("a.npy", walk)
    np.save("b.npy", walk[10:])
    np.savez("audio.npz", mfcc=walk)
    np.savetxt("lips.csv", walk @ np.ones((2, 3)) + walk[:, :1] ** 2, delimiter=",")
    pathlib.Path("captions.txt").write_text("a red star\na blue ring\n")
    return tmp_path


@pytest.mark.docs
@pytest.mark.timeout(3600)
def test_every_command_runs(place, monkeypatch, capsys):
    wrong, missing = [], set()
    for command in commands.printed():
        why = reason(command, missing)
        if why:
            if command.words[0] == "mmjax":
                args, _ = cli._parse(command.words[1], command.words[2:])
                missing.update(map(str, commands.makes(command.words[1], args)))
            print(f"left out  {command}: {why}")
            continue
        status, said = run(command, capsys)
        with capsys.disabled():
            print(f"{status:3}  {command}", flush=True)
        if status not in (0, 3):  # 3: a text is longer than the 16 tokens of `tiny`
            wrong.append(f"{command}\n{said[-2000:]}")
    assert not wrong, "\n".join(wrong)


def run(command, capsys):
    """(status, what it printed) of a command, and of those that a demo prints."""
    words = small(command.words)
    if words[0] == "source":
        return 0, ""
    if words[:2] == ["make", "demo"]:
        words = ["mmjax", "demo", "--plan", "tiny"]
    capsys.readouterr()
    if words[1] in ("plan", "launch"):  # with other devices than this process has
        argv = [sys.executable, "-m", "mmjax.cli", *words[1:]]
        done = subprocess.run(argv, capture_output=True, text=True, env=os.environ)
        return done.returncode, done.stdout + done.stderr
    status = cli.main(words[1:])
    out, err = capsys.readouterr()
    if words[1] == "demo" and "--pack" not in words and status == 0:
        lines = out.partition("go on with\n")[2].splitlines()
        assert lines
        for line in lines:
            argv = commands.split(line)
            if argv[0] != "source":
                status = max(status, cli.main(list(argv[1:])) % 3)  # 3 is fine
    return status, out + err


def test_small_commands_keep_what_is_printed():
    train = "mmjax train --config configs/clip.py:vit_b32 --workdir runs/x"
    train += " --config.steps=9 --config.data.train=webdataset:/data/x-*.tar"
    assert " ".join(small(tuple(train.split()))) == (
        "mmjax train --config clip:tiny --workdir runs/x "
        "--config.data.train=webdataset:data/x-*.tar "
        "--config.steps=4 --config.checkpoint.every=2 "
        "--config.evals.arithmetic.every=0 --config.evals.retrieval.every=0 "
        "--config.evals.unseen.every=0 --config.evals.val.every=0"
    )
    used = [" ".join(command.words) for command in commands.printed()]
    for part in LEFT_OUT:  # none of them is left from a command that is gone
        assert any(part in text for text in used), part
