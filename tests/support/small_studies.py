"""Studies of drawn squares, and raters who act as the page does."""

import json
import re
from typing import Any

import numpy as np

from mmjax.judging import study as studies

SIZE = 16


def models(count: int) -> list[studies.Model]:
    return [
        studies.Model(f"model{m}", f"runs/{m}", 10, f"f{m}", {"guidance": 1.0})
        for m in range(count)
    ]


def images(count: int, prompts: int) -> list[np.ndarray]:
    """Images of squares, each a colour that tells model and prompt."""
    drawn = np.zeros((count, prompts, SIZE, SIZE, 3), np.uint8)
    for m in range(count):
        for p in range(prompts):
            drawn[m, p, 4:12, 4:12] = (60 * m + 40, 5 * p % 250, 200)
    return list(drawn)


class Rater:
    """What the page does, over a client such as httpx2's or starlette's."""

    def __init__(self, client: Any, origin: str):
        self.client, self.csrf = client, ""
        self.headers = {"Origin": origin, "Content-Type": "application/json"}

    def post(self, path: str, body: Any, **headers: str) -> Any:
        given = self.headers | {"X-CSRF-Token": self.csrf} | headers
        given = {name: value for name, value in given.items() if value}
        data = body if isinstance(body, (str, bytes)) else json.dumps(body)
        return self.client.post(path, content=data, headers=given)

    def begin(self) -> dict[str, Any]:
        state = self.post("/begin", {}).json()
        self.csrf = state["csrf"]
        return state

    def vote(self, state: dict[str, Any], side: str, seconds: float = 3.0) -> Any:
        names = ("number", "question")
        vote = {name: state[name] for name in names}
        return self.post("/vote", vote | {"side": side, "seconds": seconds})

    def image(self, state: dict[str, Any], side: str) -> Any:
        return self.client.get(f"/image/{state['number']}/{side}")

    def facts(self) -> str:
        return re.search('data-facts="(.*?)"', self.client.get("/").text)[1]
