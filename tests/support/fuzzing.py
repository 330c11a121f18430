"""What the fuzz tests share: damages drawn from a seed, and what each input came to.

An input is a number: area, number and seed (MMJAX_FUZZ_SEED) draw the same one again.
"""

import collections
import contextlib
import copy
import json
import logging
import os
import pathlib
import random
import resource
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mmjax import errors
from mmjax.errors import UserError

SEED = int(os.environ.get("MMJAX_FUZZ_SEED", "0"))
COUNT = int(os.environ.get("MMJAX_FUZZ_COUNT", "5000"))  # inputs of all areas
PATIENCE = 30.0  # seconds before an input counts as hanging, on a machine that is busy
MEMORY = 2 << 30  # bytes beyond those that the process has: more is a MemoryError

PACKAGE = os.path.join(os.path.dirname(errors.__file__), "")

REFUSED = "refused"  # one clear message: UserError, or exit status 2
RIGHT = "right"  # the result of the undamaged input
NAMED = "named"  # what differs or is missing is said: broken records, a warning
UNSUMMED = "unsummed"  # another legal value, in a format that has no sum
SILENT = "silent"  # differs, and nothing was said
TRACEBACK, HANG = "traceback", "hang"
OUTCOMES = (REFUSED, RIGHT, NAMED, UNSUMMED, SILENT, TRACEBACK, HANG)
FAILURES = (SILENT, TRACEBACK, HANG)

# Whatever a hostile file, line or option may hold in place of a value.
HOSTILE = (
    *(None, True, False, -1, 0, 1, 2, 3.5, 2**31, -(2**63), 2**64, 10**400),
    *(1e308, -1e308, float("nan"), float("inf"), "", " ", "\0", "\ud800", "../../x"),
    *("x" * 5000, "\u202e\U0001f600", "nan", "1e400", "$HOME", "{}", "a.b", "a/b"),
    *([], [[]], [None], {}, {"": {}}, {"a": [1, {"b": None}]}, [0] * 300, ["x", 1]),
)
_TOKENS = (
    *(b"\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80", b"\r", b"\n", b"\t"),
    *(b'"', b",", b"{", b"}", b"[", b"]", b":", b"\\", b"-1", b"1e999", b"NaN"),
    *(b"null", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"../", b"%s", b"9" * 20),
)


class Hang(BaseException):
    """The time of an input is over. Nothing that catches Exception catches it."""


def counts(sample: int, share: float) -> Any:
    """Parametrizes `count`: a few in every run, a share of COUNT under -m fuzz."""
    whole = max(1, round(COUNT * share))
    return pytest.mark.parametrize(
        "count",
        [
            pytest.param(sample, id="sample"),
            pytest.param(whole, id="whole", marks=pytest.mark.fuzz),
        ],
    )


class Ledger:
    """Outcomes by area, and an account of every failure."""

    def __init__(self) -> None:
        self.outcomes: dict[str, collections.Counter] = {}
        self.failures: list[str] = []

    def explore(
        self, area: str, count: int, attempt: Callable[[random.Random, list], str]
    ) -> None:
        """Tries `count` inputs.

        attempt: draws an input, appends to the list what it is, and returns its
            outcome, unless it raises.
        """
        tally = self.outcomes.setdefault(area, collections.Counter())
        failures = []
        for number in range(count):
            notes: list[str] = []
            rng = random.Random(f"{SEED} {area} {number}")
            outcome, detail = judge(lambda r=rng, n=notes: attempt(r, n))
            tally[outcome] += 1
            if outcome in FAILURES:
                what = "; ".join(map(str, notes))[:400]
                failures.append(f"{area} {number} {outcome}: {what}\n{detail}")
        self.failures += failures
        assert not failures, f"{len(failures)} of {count}\n" + "\n".join(failures[:40])


def judge(act: Callable[[], str]) -> tuple[str, str]:
    """(outcome, account of it) of one input, within PATIENCE and MEMORY."""

    def ring(*_: Any) -> None:
        raise Hang

    before, limits = signal.signal(signal.SIGALRM, ring), resource.RLIMIT_AS
    soft, hard = resource.getrlimit(limits)
    held = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
    used = held * resource.getpagesize()
    resource.setrlimit(limits, (used + MEMORY, hard))
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        return act(), ""
    except Hang:
        return HANG, traceback.format_exc(limit=-4)
    except UserError as error:
        said = " ".join(str(error).split())
        return (REFUSED, said) if len(said) > 10 else (TRACEBACK, f"no message: {said}")
    except Exception as error:
        frames = traceback.walk_tb(error.__traceback__)
        ours = any(PACKAGE in frame.f_code.co_filename for frame, _ in frames)
        if ours and errors.refused(error):  # as the command line does
            return REFUSED, str(error)
        return TRACEBACK, traceback.format_exc(limit=-6)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(limits, (soft, hard))
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def warnings() -> Iterator[list[str]]:
    """What mmjax logs as a warning or worse meanwhile."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())
    logger = logging.getLogger("mmjax")
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)


def damage(rng: random.Random, data: bytes, notes: list) -> tuple[bytes, int]:
    """(bytes damaged in one place, how many bytes from there on are touched)."""
    size = len(data)
    at, many = rng.randrange(size or 1), rng.choice((1, 4, 16, 64, 512))
    kind = rng.choice(
        "flip flip byte token token cut insert delete zero repeat swap none".split()
    )
    token = rng.choice(_TOKENS)
    span = data[at : at + many]
    there = rng.randrange(size or 1)
    new = {
        "flip": lambda: bytes([span[0] ^ 1 << rng.randrange(8)]) + span[1:],
        "byte": lambda: bytes([rng.randrange(256)]) + span[1:],
        "token": lambda: token + span[len(token) :],
        "cut": lambda: b"",
        "insert": lambda: token + span,
        "delete": lambda: b"",
        "zero": lambda: bytes(len(span)),
        "repeat": lambda: span + span,
        "swap": lambda: data[there : there + many],
        "none": lambda: b"",
    }
    notes.append(f"{kind} at {at} of {size}, {many} bytes, {token!r}")
    if kind == "none" or not size:
        return b"", size
    if kind == "cut":
        return data[:at], size - at
    return data[:at] + new[kind]() + data[at + many :], max(many, len(token))


def hostile(rng: random.Random, old: Any = None) -> Any:
    """A value in place of `old`: of another kind, or one of its kind that is odd."""
    numbers = isinstance(old, (int, float)) and not isinstance(old, bool)
    near = [old + 1, -old, old * 2, str(old)] if numbers else []
    near += [float(old)] if numbers and abs(old) < 1e300 else []
    if isinstance(old, str):
        near = [old + "x", old[:-1], old.upper(), [old], old + "\0", old * 300]
    if isinstance(old, (list, dict)):
        near = [str(old), old and type(old)(), [old], {"a": old}]
    return copy.deepcopy(rng.choice([*near, *near, *HOSTILE]))


def mutate(rng: random.Random, value: Any, notes: list, *, most: int = 2) -> Any:
    """A JSON value with one or two values inside replaced, removed or added."""
    value = copy.deepcopy(value)
    for _ in range(rng.randint(1, most)):
        places = list(_places(value))
        if not places:
            return hostile(rng, value)
        inside, key = rng.choice(places)
        kind = rng.choice(("value", "value", "value", "remove", "add"))
        if kind == "remove":
            del inside[key]
        elif kind == "add" and isinstance(inside, dict):
            key = rng.choice(("", "x", "a.b", "\0", f"{key}x", f"{key}.y"))
            inside[key] = hostile(rng)
        elif kind == "add":
            inside.insert(key, hostile(rng, inside[key]))
        else:
            inside[key] = hostile(rng, inside[key])
        said = inside.get(key) if isinstance(inside, dict) else inside[key : key + 1]
        notes.append(f"{kind} {key!r}: {said!r:.80}")
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    inner = value.items() if isinstance(value, dict) else ()
    inner = enumerate(value) if isinstance(value, list) else inner
    for key, held in inner:
        yield value, key
        yield from _places(held)


def put(path: pathlib.Path, data: bytes) -> None:
    """Has a file at a path, whatever was there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def spoil(rng: random.Random, path: pathlib.Path, notes: list) -> None:
    """Has something else than the file, or than the folder, at a path."""
    kind = rng.choice(("missing", "folder", "fifo", "dangling", "loop", "zero", "long"))
    notes.append(f"{kind} in place of {path.name}")
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind in ("dangling", "loop"):
        path.symlink_to(path.name if kind == "loop" else "nowhere")
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    elif kind == "long":
        path.write_bytes(bytes(1 << 20))


def alter(rng: random.Random, path: pathlib.Path, notes: list) -> None:
    """Has a file spoiled, values of its JSON replaced, or its bytes damaged."""
    if rng.random() < 0.08:
        spoil(rng, path, notes)
    elif path.suffix == ".json" and rng.random() < 0.8:
        path.write_text(json.dumps(mutate(rng, json.loads(path.read_text()), notes)))
    else:
        path.write_bytes(damage(rng, path.read_bytes(), notes)[0])
