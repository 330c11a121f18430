"""`--shard K/N`: independent shares of one job, for Slurm arrays and for Ray.

Without it the same command does what no share has done, and joins their results.
"""

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeVar

from mmjax.errors import LEFT_OUT, UserError

Item = TypeVar("Item")


@dataclasses.dataclass(frozen=True)
class Share:
    """Share `number` of `count`, from 0."""

    number: int
    count: int

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        """Every count-th item."""
        return items[self.number :: self.count]


def parse(text: str) -> Share:
    """`2/8` as a share.

    Raises:
      UserError: it is none.
    """
    number, _, count = text.partition("/")
    if number.isdecimal() and count.isdecimal() and int(number) < int(count):
        return Share(int(number), int(count))
    raise UserError(f"--shard {text}: write K/N, K from 0 to N - 1, such as 0/8")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of a verb whose work splits into shares."""
    share = parser.add_mutually_exclusive_group()
    share.add_argument(
        "--shard",
        type=parse,
        metavar="K/N",
        help="do share K of N alone, K from 0: a task of a Slurm array",
    )
    share.add_argument(
        "--ray",
        type=int,
        metavar="N",
        help="do N shares as tasks of Ray (needs mmjax[ray]), and join them",
    )


def on_ray(
    main: Callable[[Sequence[str]], int], argv: Sequence[str], count: int
) -> None:
    """Runs `main(argv)` as `count` shares on Ray.

    The cluster is that of RAY_ADDRESS, otherwise this machine. A share whose worker
    dies is begun again, three times, and goes on from what it has written.

    Raises:
      UserError: Ray is missing, or a share failed.
    """
    try:
        import ray
    except ImportError:
        raise UserError("--ray needs Ray: pip install 'mmjax[ray]'") from None
    if count < 1:
        raise UserError(f"--ray {count}: use 1 share or more")

    @ray.remote(max_retries=3)
    def share(number: int) -> int:
        return main([*argv, "--shard", f"{number}/{count}"])

    started = not ray.is_initialized()
    if started:
        ray.init()
    try:
        statuses = ray.get([share.remote(number) for number in range(count)])
    except ray.exceptions.RayError as error:
        raise UserError(f"a share failed on Ray: {error}") from error
    finally:
        if started:
            ray.shutdown()
    failed = [f"{k}/{count}" for k, s in enumerate(statuses) if s not in (0, LEFT_OUT)]
    if failed:
        raise UserError(f"shares {', '.join(failed)} failed; their output says why")


def without_ray(argv: Sequence[str]) -> list[str]:
    """The arguments but for `--ray N` or `--ray=N`."""
    kept, argv = [], list(argv)
    while argv:
        word = argv.pop(0)
        if word == "--ray":
            argv.pop(0)
        elif not word.startswith("--ray="):
            kept.append(word)
    return kept
