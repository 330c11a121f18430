"""Images from a trained prior: samples, completions, and the best of K by a CLIP.

    made = Generator(load_run("runs/prior")).sample(["a red star"], k=64, seed=0)

Legend: p prompts, k candidates of each, n image tokens, s image side, d embedding.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mmjax import schema
from mmjax.errors import UserError
from mmjax.inference.load import Run

Tick = Callable[[int], Any]  # told how many candidates were just made


@dataclasses.dataclass(frozen=True)
class Candidates:
    """What was drawn, candidate c of a prompt always the same whatever k is."""

    prompts: tuple[str, ...]
    images: np.ndarray  # uint8 (p, k, s, s, 3)
    tokens: np.ndarray  # int32 (p, k, n)
    log_probs: np.ndarray  # float32 (p, k), of the tokens drawn, in nats


class Generator:
    """Draws from one prior, `batch` candidates in a call, so memory does not grow.

    Args:
      run: of a task that offers predict "sample".
      sampling: changes to the task's own `sampling` (temperature, top_k, ...).
      batch: candidates in a call, of all devices together.

    Raises:
      UserError: the task draws nothing, or an option it does not know.
    """

    def __init__(
        self, run: Run, *, sampling: Mapping[str, Any] | None = None, batch: int = 64
    ):
        if "sample" not in run.parts.raw:
            raise UserError(
                f"{run.workdir} holds a {run.config.task.name!r} model, which draws no "
                "images: give the workdir of a prior"
            )
        own = dataclasses.asdict(run.task.sampling)
        options = schema.from_mapping(
            type(run.task.sampling), {**own, **(sampling or {})}, "sampling"
        )
        task = dataclasses.replace(run.task, sampling=options)
        self.parts = dataclasses.replace(run.parts, task=task)
        self.variables = run.state.eval_vars()
        self.options, self.grid = options, task.tokenizer.grid
        self.devices = self.parts.layout.rows
        self.batch = max(batch, self.devices)

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Raises UserError for a prompt that is empty or longer than the context."""
        for prompt in prompts:
            if not prompt.strip():
                raise UserError("the prompt is empty: say what the image should show")
            size, context = self.parts.tokenizer.count(prompt), self.parts.task.context
            if size > context:
                raise UserError(
                    f"the prompt {prompt!r} has {size} tokens with its marks, and "
                    f"the model reads {context}: shorten it"
                )

    def pieces(self, prompt: str) -> dict[str, int]:
        """Words of a prompt that are no single token, and how many each takes.

        The model spells them out; where its tokenizer was trained on its captions it
        has rarely or never seen them.
        """
        count = self.parts.tokenizer.count
        counts = {word: count(word) - count("") for word in prompt.split()}
        return {word: many for word, many in counts.items() if many > 1}

    def sample(
        self,
        prompts: Sequence[str],
        *,
        k: int,
        seed: int = 0,
        prefix: np.ndarray | None = None,
        tick: Tick = lambda made: None,
    ) -> Candidates:
        """`k` candidates for each prompt; `prefix` int32 (p, m): tokens given.

        Where k does not split over the devices, surplus candidates are drawn and left
        out: what comes back is the same on any number of devices.
        """
        if k < 1:
            raise UserError(f"k is {k}: ask for one candidate or more")
        self.check_prompts(prompts)
        tokens_pl, mask_pl = self.parts.tokenizer.encode(list(prompts))
        seed_p = np.array([_seed(seed, prompt) for prompt in prompts], np.uint32)
        rows = {"tokens": tokens_pl, "tokens_mask": mask_pl, "seed": seed_p}
        if prefix is not None:
            rows["prefix"] = np.asarray(prefix, np.int32)
        found: dict[str, list] = {}
        for prompt_u, candidate_uk, real in self._calls(len(prompts), k):
            batch = {name: value[prompt_u] for name, value in rows.items()}
            batch["candidate"] = candidate_uk
            out = self.parts.predict["sample"](self.variables, batch)
            for name, value in out.items():
                found.setdefault(name, []).append(np.asarray(value)[:real])
            tick(real * candidate_uk.shape[1])
        whole = {}
        for name, parts in found.items():
            value = np.concatenate(parts)  # (units, size, ...)
            value = value.reshape(len(prompts), -1, *value.shape[2:])
            whole[name] = value[:, :k]
        return Candidates(
            prompts=tuple(prompts),
            images=whole["image"],
            tokens=whole["image_tokens"],
            log_probs=whole["log_prob"],
        )

    def _calls(self, p: int, k: int) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
        """(prompt numbers, candidate numbers, how many rows count) of every call.

        A row is a prompt with a block of its candidates: its text is read once.
        """
        devices = self.devices
        wanted = k if p >= devices else -(-k // devices)
        size = max(1, min(wanted, self.batch // devices))
        rows = max(devices, self.batch // size // devices * devices)
        blocks = -(-k // size)
        rows = min(rows, -(-p * blocks // devices) * devices)
        unit_u = np.arange(p * blocks)
        for start in range(0, len(unit_u), rows):
            take_u = np.minimum(np.arange(start, start + rows), len(unit_u) - 1)
            first_u1 = (take_u % blocks * size)[:, None]
            candidate_uk = (first_u1 + np.arange(size)).astype(np.int32)
            yield take_u // blocks, candidate_uk, min(rows, len(unit_u) - start)

    def complete(
        self,
        images: Sequence[np.ndarray],
        prompts: Sequence[str],
        *,
        rows: int,
        k: int,
        seed: int = 0,
        tick: Tick = lambda made: None,
    ) -> Candidates:
        """As `sample`, with the first `rows` rows of tokens taken from the images.

        Images of another size go through the run's evaluation view first. What lies
        below the given rows is hidden before the image is encoded: the encoder's
        tokens look beyond their own patch.
        """
        if len(images) != len(prompts):
            raise UserError(
                f"{len(images)} images and {len(prompts)} prompts: pair them"
            )
        pixels = np.stack([self.parts.image_cfg.evaluate(image) for image in images])
        return self.sample(
            prompts, k=k, seed=seed, prefix=self.prefix(pixels, rows), tick=tick
        )

    def prefix(self, image_pss3: np.ndarray, rows: int) -> np.ndarray:
        """Tokens int32 (p, rows * grid) of the tops of images uint8 (p, s, s, 3).

        Below, each column repeats the last pixel that is given.
        """
        if not 1 <= rows < self.grid:
            raise UserError(
                f"rows is {rows}: give 1 to {self.grid - 1} of the {self.grid} rows of "
                "tokens"
            )
        side = image_pss3.shape[1]
        cut = rows * side // self.grid
        hidden = np.repeat(image_pss3[:, cut - 1 : cut], side - cut, axis=1)
        seen_pss3 = np.concatenate([image_pss3[:, :cut], hidden], axis=1)
        found = []
        for start in range(0, len(seen_pss3), self.batch):
            part = {"image": seen_pss3[start : start + self.batch]}
            out = self.parts.predict["encode"](self.variables, part)
            found.append(np.asarray(out["image_tokens"]))
        return np.concatenate(found)[:, : rows * self.grid]


def embeddings(run: Run, made: Candidates) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows of a contrastive model: images (p, k, d) and prompts (p, d)."""
    p, k = made.images.shape[:2]
    flat = made.images.reshape(p * k, *made.images.shape[2:])
    image_pkd = run.embed_images(list(flat)).reshape(p, k, -1)
    return image_pkd, run.embed_texts(made.prompts)


def _seed(seed: int, prompt: str) -> int:
    """A prompt's own seed, so that its images do not depend on the other prompts."""
    text = f"{seed}:{prompt}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:4], "little")
