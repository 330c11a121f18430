"""README and the pages of docs/: in the navigation, no dead link, images described."""

import ast
import functools
import pathlib
import re

import commands
import pytest

ROOT = commands.ROOT
DOCS = ROOT / "docs"
BESIDE = ("README.md", "CONTRIBUTING.md", "experiments/*/README.md")
_FENCE = re.compile(r"^```.*?^```", re.M | re.S)
_CODE = re.compile(r"(`+)[^`]+\1")
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


def pages() -> list[pathlib.Path]:
    """Those of the site: docs/, and what its hook puts there."""
    beside = [path for pattern in BESIDE for path in sorted(ROOT.glob(pattern))]
    return [*sorted(DOCS.rglob("*.md")), *beside]


def test_every_page_is_in_the_navigation_once():
    named = commands.navigation()
    there = [str(path.relative_to(DOCS)) for path in sorted(DOCS.rglob("*.md"))]
    missing = sorted(set(there) - set(named))
    assert not missing, f"write their lines into `nav` of mkdocs.yml: {missing}"
    assert sorted(named) == there


@pytest.mark.parametrize("name", commands.navigation("Systems")[1:])
def test_a_systems_page_says_what_it_is_how_to_run_it_and_what_came_out(name):
    text = (DOCS / name).read_text("utf-8")
    heads = re.findall(r"^## (.+)$", text, re.M)
    assert re.match(r"What the papers? says?$", heads[0])
    assert heads[1] == "What we do" and heads[-1].startswith("Results")
    assert list(commands.of(name, text.partition("\n## ")[0])), "begin with a command"


def test_links_lead_somewhere_and_images_say_what_they_show():
    wrong = [problem for page in pages() for problem in problems(page)]
    assert not wrong, "\n".join(wrong)


def problems(page: pathlib.Path) -> list[str]:
    """What is wrong with the links and images of a page, a line each."""
    name, found = page.relative_to(page.anchor), []
    for image, text, target in _LINK.findall(prose(page)):
        if image and not text.strip():
            found.append(f"{name}: the image {target} has no alternative text")
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists():
            found.append(f"{name}: {target} leads nowhere")
        elif anchor and anchor not in anchors(there):
            found.append(f"{name}: {path or name} has no heading #{anchor}")
    return found


def prose(page: pathlib.Path) -> str:
    """A page without its code."""
    return _CODE.sub("", _FENCE.sub("", page.read_text("utf-8")))


@functools.cache
def anchors(page: pathlib.Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and mkdocs both make them."""
    text = _FENCE.sub("", page.read_text("utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    bare = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title) for title in titles)
    kept = (re.sub(r"[^\w\s-]", "", title.lower()).strip() for title in bare)
    return {re.sub(r"\s", "-", title) for title in kept if "  " not in title}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[x](nowhere.md)", "leads nowhere"),
        ("[x](#nothing)", "no heading #nothing"),
        ("![](a.png)", "no alternative text"),
        ("# A title, here\n[x](#a-title-here) `[x](y)` [x](https://y.z)", ""),
    ],
)
def test_a_wrong_link_is_found(tmp_path, text, why):
    (tmp_path / "a.png").touch()
    (tmp_path / "page.md").write_text(text)
    found = problems(tmp_path / "page.md")
    assert [why in problem for problem in found] == ([True] if why else [])


def test_a_hash_inside_a_word_is_no_comment():
    words = commands.split("mmjax train --config.graft.text=runs/a#params  # 'so'")
    assert words == ("mmjax", "train", "--config.graft.text=runs/a#params")


def test_python_of_the_pages_is_python():
    for page in pages():
        for block in re.findall(
            r"^```python\n(.*?)^```", page.read_text(), re.M | re.S
        ):
            ast.parse(block, str(page))


def test_readme_is_a_screen_and_a_half():
    text = (ROOT / "README.md").read_text()
    assert len(text.split()) <= 700 and text.count("![") == 1
