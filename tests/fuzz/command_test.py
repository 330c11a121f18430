"""Command lines that nobody meant: one line and exit status 2, and no traceback."""

import contextlib
import io

import fuzzing
import pytest

from mmjax import cli, tree
from mmjax.train import config, evaluate, loop, setup

FAMILIES = ("clip", "vqvae", "dvae", "prior", "classifier")
# What a command line may hold; NUL bytes cannot reach a program.
WORDS = (
    *("", " ", "-", "--", "--bogus", "-k", "--top", "--help", "x" * 3000, "\udcff"),
    *("é\U0001f600", "-1", "0", "1e999", "nan", "None", "True", "9" * 500, "1.5"),
    *("(1, 2", "{[]: 1}", "[" * 300, "()", "{}", "{1: 2}", "b'x'", "...", "a.b.c"),
    *("/dev/zero", "/dev/null", "/nowhere/x", ".", "..", "/", "x:y", "folder:", ":"),
    *("shapes:val?size=0", "shapes:val?count=x", "csv:/dev/zero", "npz:.", "tar:x"),
    *("shapes:val?limit=-1", "webdataset:*", "tfds:x/y", "tokens:.", "a=b", "=", "1:2"),
    *("--config.", "--config.=1", "--config.steps", "--config.steps=", "--set=x"),
)
# Values of overrides: numbers mostly, since most keys take numbers.
VALUES = (
    *("0", "1", "2", "3", "-1", "7", "0.5", "-0.5", "1e-3", "1e9", "1e308", "1e999"),
    *("nan", "inf", "-inf", "9" * 500, "4294967296", "9223372036854775808", "True"),
    *("clip", "jit", "pmap", "adamw", "float32", "bfloat16", "x", "(1, 2)", "(0,)"),
)
SHOWN = "shapes:val?size=16&count=4"


@pytest.fixture
def no_training(monkeypatch):
    """A config that passes is built, and not trained."""

    def run(cfg, workdir, profile=None):
        del workdir, profile
        evaluate.make_evaluators(setup.build(cfg))
        return {}

    monkeypatch.setattr(loop, "run", run)


@pytest.fixture(scope="module")
def keys():
    """The keys of all families' configs, as overrides name them."""
    found = {}
    for name in FAMILIES:
        flat = tree.flatten(config.load(f"{name}:tiny").to_dict())
        found[name] = sorted(key.replace("/", ".") for key in flat)
    return found


def commands(tmp_path):
    nowhere, out = str(tmp_path / "nowhere"), str(tmp_path / "out.png")
    return (
        ["data", "check", SHOWN, "--out", out],
        ["data", "check", f"folder:{tmp_path}", SHOWN, "--out", out],
        ["data", "bpe", SHOWN, "--vocab-size", "300", "--out", str(tmp_path / "b")],
        ["data", "build", "x", "--data-dir", nowhere, "--split", "a=folder:/nowhere"],
        ["data", "tokenize", nowhere, SHOWN, "--out", str(tmp_path / "t")],
        ["inspect", nowhere],
        ["index", "show", nowhere],
        ["index", "search", nowhere, "--text", "a", "--top", "3", "--out", out],
        ["index", "build", nowhere, "--source", SHOWN, "--out", str(tmp_path / "i")],
        ["convert", nowhere, str(tmp_path / "c"), "--from", "hf_clip"],
        ["convert", "--list"],
        ["sample", nowhere, "a", "-k", "2", "--set", "top_k=3", "--out", out],
        ["zeroshot", nowhere, out, "--labels", "a", "b"],
        ["embed", nowhere, "--images", out, "--out", str(tmp_path / "e.npz")],
        ["eval", nowhere, "--evals", "val"],
        ["complete", nowhere, "a", "--images", out],
        ["arithmetic", nowhere, out],
        ["--version"],
    )


def changed(rng, argv):
    argv = list(argv)
    for _ in range(rng.randint(1, 2)):
        at = rng.randrange(1, len(argv) + 1)
        kind = rng.choice(("value", "value", "remove", "insert", "repeat"))
        if kind == "insert" or at == len(argv):
            argv.insert(at, rng.choice(WORDS))
        elif kind == "value":
            argv[at] = rng.choice(WORDS)
        elif kind == "repeat":
            argv.insert(at, argv[at])
        elif len(argv) > 1:
            del argv[at]
    return argv


def override(rng, names):
    key = rng.choice(names)
    if rng.random() < 0.2:
        key = rng.choice((key[:-1], f"{key}.x", key.replace(".", ".."), f"{key}x"))
    return f"--config.{key}={rng.choice(rng.choice((WORDS, VALUES, VALUES)))}"


def outcome(argv):
    """Runs a command as a shell would; what its exit status and words say."""
    out = io.TextIOWrapper(io.BytesIO(), "utf-8")
    said = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace")
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
            code = cli.main(argv)
    except SystemExit as done:  # of --help
        code = done.code
    said.flush()
    lines = said.buffer.getvalue().decode().splitlines()
    if code == 2:
        last = lines[-1:] or ["usage" if not argv or argv[0] in ("", " ") else ""]
        assert last[0].startswith("mmjax: ") and len(last[0]) > 20, lines
        return fuzzing.REFUSED
    assert code in (0, 3), (code, lines)
    return fuzzing.NAMED if code else fuzzing.RIGHT


@fuzzing.counts(15, 0.13)
def test_a_command(count, keys, no_training, ledger, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # what a word names is written here

    def attempt(rng, notes):
        if rng.random() < 0.5:
            name = rng.choice(FAMILIES)
            argv = ["train", "--config", f"{name}:tiny", "--workdir", "w"]
            argv += [override(rng, keys[name]) for _ in range(rng.randint(1, 2))]
            if rng.random() < 0.2:
                argv = changed(rng, argv)
        else:
            argv = changed(rng, rng.choice(commands(tmp_path)))
        notes.append(f"{argv!r:.300}")
        return outcome(argv)

    ledger.explore("command line", count, attempt)
