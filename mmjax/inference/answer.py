"""Answers to questions about images by a trained run: `Answerer(load_run("runs/vqa"))`.

Legend: a answers, all that the run was trained with.
"""

import numpy as np

from mmjax.data import fields
from mmjax.errors import UserError
from mmjax.inference.load import Run


def answers(run: Run) -> bool:
    """Whether a run scores answers to a text."""
    return "logits" in run.parts.predict and "tokens" in run.task.reads


class Answerer:
    """Says how probable each answer of a run is.

    Raises:
      UserError: the run answers nothing, or looks at several images at once.
    """

    def __init__(self, run: Run):
        if not answers(run):
            raise UserError(
                f"{run.workdir} is a run of task {run.config.task.name}, which answers "
                "nothing"
            )
        if run.parts.image_cfg is None:
            raise UserError(
                f"{run.workdir} looks at {run.task.reads[0]} of several images, and "
                "one image is given: `mmjax eval` asks about records"
            )
        self.run = run
        self.names = run.parts.fields["label"].class_names

    def ask(self, image: np.ndarray, question: str) -> list[tuple[str, float]]:
        """(answer, its chance) of an image, uint8 (H, W, 3), the best first.

        Raises:
          UserError: the question has no words.
        """
        if not any(c.isalnum() for c in question):
            raise UserError(
                f"the question {question!r} has no words: ask one, such as "
                '"is there a red shape?"'
            )
        parts = self.run.parts
        given = fields.encode(parts.fields, "image", [image])
        given |= fields.encode(parts.fields, "tokens", [question])
        batch = {k: np.repeat(x, parts.layout.rows, 0) for k, x in given.items()}
        logits_a = parts.predict["logits"](self.run.state.eval_vars(), batch)[0]
        odds_a = np.exp(logits_a - logits_a.max())
        chance_a = odds_a / odds_a.sum()
        order_a = np.argsort(-odds_a, kind="stable")
        return [(self._name(a), float(chance_a[a])) for a in order_a]

    def _name(self, a: int) -> str:
        return self.names[a] if a < len(self.names) else f"answer {a}"
