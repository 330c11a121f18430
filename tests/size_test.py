"""No file over 400 lines and no function over 80."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).parents[1]
FILE, FUNCTION = 400, 80


def test_files_and_functions_stay_small():
    wrong = []
    for path in sorted((ROOT / "mmjax").rglob("*.py")):
        place, text = path.relative_to(ROOT), path.read_text(encoding="utf-8")
        lines = len(text.splitlines())
        if lines > FILE:
            wrong.append(f"{place}: {lines} lines, at most {FILE}")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.lineno + 1
                if lines > FUNCTION:
                    what = f"{place}:{node.lineno} {node.name}"
                    wrong.append(f"{what}: {lines} lines, at most {FUNCTION}")
    assert not wrong, "\n".join(wrong)
