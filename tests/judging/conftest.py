"""A new study in a folder of its own."""

import pathlib

import pytest
import small_studies

from mmjax.judging import study as studies


@pytest.fixture
def make(tmp_path):
    """(models, prompts, options) -> the folder of a new study."""

    def made(count: int = 2, prompts: int = 10, **options) -> pathlib.Path:
        folder = tmp_path / f"study{count}x{prompts}"
        texts = [f"caption {p} of things {p % 3}" for p in range(prompts)]
        drawn = small_studies.images(count, prompts)
        studies.create(folder, small_studies.models(count), texts, drawn, **options)
        return folder

    return made
