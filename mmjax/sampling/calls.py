"""Many candidates by calls of one size to predict "sample" or "complete".

Legend: p prompts, k candidates of each, u rows of a call, c candidates in a row.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

Rows = dict[str, np.ndarray]
Tick = Callable[[int], Any]  # told how many candidates were just drawn
Seen = Callable[[Rows], Any]  # told the rows (n, ...) of a call, prompt by prompt


def conditions(
    prompts: Sequence[str] | Sequence[int], tokenizer: Any, *, seed: int
) -> Rows:
    """One row a prompt: its condition as the task reads it, and `seed` uint32 (p,).

    A prompt's seed follows from `seed` and the prompt alone, so that its images depend
    neither on its position nor on the other prompts.

    Args:
      prompts: Texts, read as `tokens` and `tokens_mask`, or numbers, read as `label`.
      tokenizer: The run's; labels need none.
      seed: Another seed draws other images of the same prompts.
    """
    if all(isinstance(prompt, str) for prompt in prompts):
        tokens_pl, mask_pl = tokenizer.encode(list(prompts))
        rows = {"tokens": tokens_pl, "tokens_mask": mask_pl}
        contents = [prompt.encode() for prompt in prompts]
    else:
        rows = {"label": np.asarray(prompts, np.int32)}
        contents = [label.tobytes() for label in rows["label"]]
    digests = [hashlib.sha256(f"{seed}:".encode() + c).digest() for c in contents]
    seeds = [int.from_bytes(digest[:4], "little") for digest in digests]
    return rows | {"seed": np.array(seeds, np.uint32)}


def batches(
    rows: Rows, *, k: int, size: int, devices: int = 1
) -> Iterator[tuple[Rows, int]]:
    """(batch, how many of its rows count) of every call, all of one shape.

    A row is a prompt with a block of its candidates, so that its text is read once for
    the block. Rows split over the devices; the last call repeats its last row.

    Args:
      rows: Arrays (p, ...), among them `seed`.
      k: Candidates of each prompt.
      size: Candidates in a call, at most, but for one on each device.
      devices: The number that rows have to be a multiple of.
    """
    p, size = len(rows["seed"]), max(size, devices)
    block = min(k if p >= devices else -(-k // devices), size // devices)
    blocks = -(-k // block)
    block = -(-k // blocks)  # blocks of equal size draw the fewest that nobody needs
    total = p * blocks
    step = min(size // block, -(-total // devices) * devices) // devices * devices
    for start in range(0, total, step):
        unit_u = np.minimum(np.arange(start, start + step), total - 1)
        candidate_uc = (unit_u % blocks * block)[:, None] + np.arange(block)
        batch = {name: array[unit_u // blocks] for name, array in rows.items()}
        batch["candidate"] = candidate_uc.astype(np.int32)
        yield batch, min(step, total - start)


def draw(
    call: Callable[[Rows], Mapping[str, np.ndarray]],
    rows: Rows,
    *,
    k: int,
    size: int,
    devices: int = 1,
    tick: Tick = lambda count: None,
    seen: Seen = lambda rows: None,
) -> Rows:
    """Arrays (p, k, ...) of all that `call` gives, see `batches`.

    Candidate c of a prompt is the same whatever `k`, `size` and `devices` are. What
    `tick` or `seen` raises after a call ends the drawing.
    """
    parts: dict[str, list[np.ndarray]] = {}
    for batch, real in batches(rows, k=k, size=size, devices=devices):
        wanted_uc = batch["candidate"][:real] < k
        drawn = {
            name: np.asarray(array_uc)[:real][wanted_uc]
            for name, array_uc in call(batch).items()
        }
        for name, array in drawn.items():
            parts.setdefault(name, []).append(array)
        tick(int(wanted_uc.sum()))
        seen(drawn)
    p = len(rows["seed"])
    joined = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    return {name: x.reshape(p, k, *x.shape[1:]) for name, x in joined.items()}
