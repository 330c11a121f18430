"""Notebooks as they are stored. tests/cli/demo_test.py runs them."""

import pytest

import notebooks

SETUP = 'if importlib.util.find_spec("mmjax") is None:  # on Colab\n    %pip install'
PUBLIC = {"importlib", "os", "pathlib", "random", "collections"}
PUBLIC |= {"matplotlib", "numpy", "PIL", "mmjax"}


def test_there_are_five():
    assert len(notebooks.NAMES) == 5


@pytest.mark.parametrize("name", notebooks.NAMES)
def test_a_notebook_comes_in_by_the_public_door(name):
    cells = notebooks.code(notebooks.read(name))
    assert SETUP in cells[0].source
    lines = [line.split() for cell in cells for line in cell.source.splitlines()]
    for words in lines:
        if words[:1] in (["import"], ["from"]):
            whole = words[1].split(".")
            assert whole[0] in PUBLIC and whole[:2] != ["mmjax", whole[-1]], words


@pytest.mark.parametrize("name", notebooks.NAMES)
def test_stored_outputs_are_of_this_code(name):
    """`make notebooks` writes them."""
    book = notebooks.read(name)
    shown = [cell for cell in notebooks.code(book) if cell.outputs]
    if not shown:
        pytest.skip(f"{name} is stored without outputs: make demo, make notebooks")
    assert book.metadata.get(notebooks.OF) == notebooks.digest(book)
    assert len(shown) > 4
    kinds = {output.output_type for cell in shown for output in cell.outputs}
    assert kinds <= {"stream", "display_data", "execute_result"}
    assert (notebooks.FOLDER / f"{name}.ipynb").stat().st_size < 400_000
    assert not notebooks.paths(book)
