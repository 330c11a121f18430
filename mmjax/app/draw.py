"""Drawing and completing images on the page: candidates as they come, ranked.

Legend: n images of a call, s image side.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmjax.app import tools
from mmjax.app.fields import Field
from mmjax.app.line import Tell
from mmjax.app.tools import Tool
from mmjax.errors import UserError
from mmjax.inference import generate, load


class Drawer:
    """The tools of a run that draws.

    Args:
      run: Its batch size is how many candidates a call draws.
      judge: A contrastive run that ranks; `log_prob` does without one, where the task
        gives it.
    """

    def __init__(self, run: load.Run, judge: load.Run | None):
        self.run, self.size = run, run.parts.cfg.batch_size
        self.held = tools.Held(
            lambda how: generate.Generator(run, sampling=how, batch=self.size), run.task
        )
        label = run.parts.fields.get("label")
        self.names = tuple(getattr(label, "class_names", ()))
        self.judge = judge if run.tokenizer or self.names else None

    def tools(self, texts: tuple[str, ...], image: Field) -> list[Tool]:
        """Draw, and Complete where the task completes."""
        counts = tuple(self.size << n for n in range(5))
        prompt = Field("prompt", "Label", "number", 0)
        if self.run.tokenizer:
            prompt = Field("prompt", "Prompt", examples=texts)
        elif self.names:
            prompt = Field("prompt", "Label", "choice", self.names[0], self.names)
        common = (
            Field("k", "Candidates", "choice", counts[1], counts),
            Field("seed", "Seed", "number", 0),
            *self.held.fields,
        )
        draws = [prompt]
        if "strength" in {field.name for field in self.held.fields}:
            about = "What guidance leads away from; it is one of the options."
            draws.append(Field("negative", "Without", about=about, optional=True))
            about = "To begin from, as far as the option strength says."
            more = {"name": "start", "label": "Start", "optional": True}
            draws.append(dataclasses.replace(image, about=about, **more))
        by = f" by {self.judge.workdir.resolve().name}" if self.judge else ""
        about = f"Images for a prompt as they are drawn, ranked{by}."
        listed = [Tool("Draw", self.run, about, (*draws, *common), self.draw)]
        if tools.offers(self.run, "complete"):
            about = f"The lower half of an image, drawn anew, ranked{by}."
            shown = (image, prompt, *common)
            listed.append(Tool("Complete", self.run, about, shown, self.complete))
        return listed

    def draw(self, values: dict[str, Any], tell: Tell) -> None:
        """See Tool.call."""
        generator = self.held.take(values, tell)
        more = {"negative": values.get("negative", "")}
        if values.get("start") is not None:
            more["start"] = [values["start"]]
        prompt = self._prompt(values, generator, tell)
        generator.sample([prompt], **self._how(values, tell), **more)

    def complete(self, values: dict[str, Any], tell: Tell) -> None:
        """See Tool.call."""
        generator = self.held.take(values, tell)
        prompt, image = self._prompt(values, generator, tell), values["image"]
        view = self.run.view(image)
        known_ss = np.arange(len(view))[:, None] < np.full(len(view), len(view) // 2)
        seen = np.where(known_ss[..., None], view, np.uint8(128))
        tell(tools.card(seen, "The upper half, which is given", caption="given"))
        how = self._how(values, tell)
        generator.complete([image], [prompt], known=known_ss, **how)

    def _prompt(
        self, values: dict[str, Any], generator: generate.Generator, tell: Tell
    ) -> str | int:
        """The prompt after its checks; what is odd about it is told."""
        prompt = values["prompt"]
        if self.run.tokenizer is None:
            return self.names.index(prompt) if self.names else int(prompt)
        generator.check_prompts([prompt])
        if pieces := generator.pieces(prompt):
            words = ", ".join(pieces)
            tell({"note": f"Spelled in pieces, perhaps never seen: {words}."})
        return prompt

    def _how(self, values: dict[str, Any], tell: Tell) -> dict[str, Any]:
        """k and seed, and what tells the candidates of each call with their scores."""
        text, judge, count = str(values["prompt"]), self.judge, 0
        if judge:
            text_d = judge.embed_texts([text])[0]
            if judge.cut([text]).any():
                tell({"note": f"{judge.workdir} ranks by the beginning of the prompt."})

        def seen(rows: Mapping[str, np.ndarray]) -> None:
            nonlocal count
            if "image" not in rows:
                raise UserError(f"{self.run.workdir} draws {', '.join(rows)}, no image")
            scores, by = rows.get("log_prob"), "log p"
            if judge:
                scores, by = judge.embed_images(list(rows["image"])) @ text_d, "CLIP"
            for n, pixels in enumerate(rows["image"]):
                more = {"caption": f"candidate {count}"}
                if scores is not None:
                    more |= {"score": float(scores[n]), "by": by}
                tell(tools.card(pixels, f"Candidate {count} for {text}", **more))
                count += 1

        return {"k": values["k"], "seed": values["seed"], "seen": seen}
