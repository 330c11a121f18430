"""Who may import whom, and what nobody may write: read from the syntax tree."""

import ast
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# What of ours each part of mmjax may import, besides itself and mmjax.errors.
# A folder stands for all that it holds.
ALLOWED = {
    "__init__": "",
    "errors": "",
    "tree": "",
    "state": "",
    "schema": "",
    "flops": "",
    "runtime": "cache",
    "cluster": "runtime",
    "hosts": "",
    "cache": "",
    "checksum": "tree",
    "clock": "flops",
    "nn": "nn tree",
    "losses": "losses",
    "probe": "probe",
    "sampling": "sampling",
    "models": "models nn schema",
    "parallel": "hosts tree state schema",
    "optim": "tree state schema",
    "checkpoint": "hosts tree state schema checksum",
    "metrics": "tree state schema",
    "step": "state tree",
    "tasks": "tasks.base models nn losses sampling state schema",
    "data": "data schema cache",
    "evaluators": (
        "evaluators arithmetic metrics data parallel state schema sampling.rerank probe"
    ),
    "arithmetic": "",
    "index": "index data parallel schema",
    "convert": "convert models tree schema data.text data.bpe data.pieces",
}
# These put the parts together: they may import all but the members of a family.
ASSEMBLY = {"train", "parts", "config", "notebook", "generate", "demo", "cli"}
ASSEMBLY |= {"commands", "gallery", "planning", "suite", "transfer"}
FAMILIES = ("nn", "models", "losses", "sampling", "tasks", "convert")

OUTSIDE = {  # part: packages it never imports
    "data": {"jax", "jaxlib", "flax", "optax", "orbax"},
    "configs": {"jax", "flax", "mmjax"},
    "experiments": {"jax", "flax", "mmjax"},
}
LAZY = {"torch", "tensorflow", "open_clip", "mmjax.convert"}  # only in a function
CONFIG_IMPORTS = {"ml_collections", "mmjax_configs"}

BANNED_MODULES = {
    "jax.experimental.maps": "gone from jax: use jax.shard_map",
    "jax.experimental.pjit": "deprecated: use jax.jit",
    "jax.experimental.host_callback": "gone from jax: use jax.pure_callback",
    "flax.nnx": "breaks with some jax versions: use flax.linen",
    "pickle": "runs code from files",
    "dill": "runs code from files",
    "cloudpickle": "runs code from files",
    "joblib": "runs code from files",
}
BANNED_NAMES = {
    "jax.tree_map": "gone from jax: use jax.tree.map",
    "jax.device_put_replicated": "gone from jax: use jax.device_put",
    "jax.device_put_sharded": "gone from jax: use jax.device_put",
}
CONFIGS = {"config", "cfg", "conf"}


def files(*folders: str) -> list[pathlib.Path]:
    return sorted(p for f in folders for p in (ROOT / f).rglob("*.py"))


def imports(node: ast.AST) -> Iterator[str]:
    """Full dotted names that an import statement brings in."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        head = "." * node.level + (node.module or "")
        yield from (f"{head}.{alias.name}" for alias in node.names)


def within(name: str, packages) -> bool:
    return any(name == p or name.startswith(f"{p}.") for p in packages)


def at_start(tree: ast.Module) -> Iterator[ast.AST]:
    """Nodes that run when the module is imported: all outside functions."""
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        yield node
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        stack += [] if inside else ast.iter_child_nodes(node)


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def forbidden(part: str, name: str) -> str:
    """Why `part` of mmjax may not import `name`, or ''."""
    if name.startswith("."):
        return "relative imports do not say where things live"
    if within(name, OUTSIDE.get(part, ())):
        return f"{part} works without {name.split('.')[0]}"
    if not name.startswith("mmjax.") or within(name, ("mmjax.errors",)):
        return ""
    target = name.removeprefix("mmjax.")
    if target.startswith("_"):
        return ""  # mmjax.__version__
    if part in ASSEMBLY:
        member = within(target, FAMILIES) and not within(target, ("tasks.base",))
        lazily = part in ("commands", "transfer") and within(target, ("convert",))
        return "shared code names no family" if member and not lazily else ""
    if part not in ALLOWED:
        return f"{part} is not in the table of tests/layering_test.py"
    legal = ALLOWED[part].split()
    return "" if within(target, legal) else f"{part} may import: {', '.join(legal)}"


def banned(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, reason) of everything that no file may hold."""
    for node in ast.walk(tree):
        for name in imports(node):
            for module, why in BANNED_MODULES.items():
                if within(name, (module,)):
                    yield node.lineno, f"{module}: {why}"
            if name in BANNED_NAMES:
                yield node.lineno, f"{name}: {BANNED_NAMES[name]}"
        if isinstance(node, ast.Attribute):
            why = BANNED_NAMES.get(dotted(node)) or BANNED_MODULES.get(dotted(node))
            if why:
                yield node.lineno, f"{dotted(node)}: {why}"
        if isinstance(node, ast.Call):
            yield from _banned_calls(node)
        if isinstance(node, ast.ExceptHandler):
            silent = all(isinstance(line, ast.Pass) for line in node.body)
            broad = node.type is None or dotted(node.type) in (
                "Exception",
                "BaseException",
            )
            if node.type is None or (silent and broad):
                yield node.lineno, "a broad except that hides its error"


def _banned_calls(node: ast.Call) -> Iterator[tuple[int, str]]:
    called = dotted(node.func)
    if called in ("eval", "exec"):
        yield node.lineno, f"{called}() runs code from strings"
    owner = called.removesuffix(".get").split(".")
    if called.endswith(".get") and (CONFIGS & {owner[0], owner[-1]}):
        yield node.lineno, f"{called}(): defaults live in dataclasses"
    for keyword in node.keywords:
        if keyword.arg == "allow_pickle" and not (
            isinstance(keyword.value, ast.Constant) and keyword.value.value is False
        ):
            yield node.lineno, "allow_pickle: nothing is unpickled"


def parse(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def test_imports_follow_the_table():
    wrong = []
    for path in files("mmjax"):
        place = path.relative_to(ROOT)
        part = place.parts[1].removesuffix(".py")
        for node in ast.walk(parse(path)):
            for name in imports(node):
                why = forbidden(part, name)
                if why:
                    wrong.append(f"{place}:{node.lineno} imports {name}: {why}")
    assert not wrong, "\n".join(wrong)


def test_heavy_packages_load_only_when_used():
    wrong = []
    for path in files("mmjax"):
        if path.is_relative_to(ROOT / "mmjax" / "convert"):
            lazy = LAZY - {"mmjax.convert"}
        else:
            lazy = LAZY
        for node in at_start(parse(path)):
            found = [name for name in imports(node) if within(name, lazy)]
            wrong += [f"{path.relative_to(ROOT)}:{node.lineno} {n}" for n in found]
    assert not wrong, "import these inside a function:\n" + "\n".join(wrong)


def test_configs_import_next_to_nothing():
    wrong = []
    for path in files("configs", "experiments"):
        for node in ast.walk(parse(path)):
            for name in imports(node):
                standard = name.split(".")[0] in sys.stdlib_module_names
                if not standard and not within(name, CONFIG_IMPORTS):
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} {name}")
    assert not wrong, "\n".join(wrong)


def test_configs_can_be_read_without_jax():
    names = [p.stem for p in files("configs") if p.stem != "__init__"]
    code = "\n".join(
        [
            "import importlib, sys",
            "sys.modules |= {'jax': None, 'mmjax': None, 'numpy': None}",
            f"for name in {names!r}:",
            "    module = importlib.import_module('mmjax_configs.' + name)",
            "    getattr(module, 'get_config', dict)()",
        ]
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_nobody_writes_what_is_banned():
    wrong = [
        f"{path.relative_to(ROOT)}:{line} {why}"
        for path in files("mmjax", "configs", "experiments", "benchmarks")
        for line, why in banned(parse(path))
    ]
    assert not wrong, "\n".join(wrong)
    assert not [p for p in files("mmjax") if p.stem in ("utils", "util", "helpers")]


@pytest.mark.parametrize(
    "code",
    [
        "jax.tree_map(f, x)",
        "from jax import tree_map",
        "from jax.experimental.pjit import pjit",
        "from jax.experimental import maps",
        "import jax.experimental.host_callback as hcb",
        "jax.device_put_replicated(x, d)",
        "from flax import nnx",
        "flax.nnx.Module",
        "x = config.get('lr', 1)",
        "x = cfg.optim.get('lr', 1)",
        "x = self.config.get('lr')",
        "import pickle",
        "np.load(f, allow_pickle=True)",
        "np.load(f, allow_pickle=flag)",
        "eval('1')",
        "exec(code)",
        "try: f()\nexcept Exception: pass",
        "try: f()\nexcept: raise",
    ],
)
def test_the_ban_sees(code):
    assert list(banned(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "jax.tree.map(f, x)",
        "values.get('lr')",
        "model.eval()",
        "jax.eval_shape(f, x)",
        "'import pickle'",
        "np.load(f, allow_pickle=False)",
        "try: f()\nexcept KeyError: pass",
        "try: f()\nexcept Exception as e: raise ValueError from e",
    ],
)
def test_the_ban_lets_pass(code):
    assert not list(banned(ast.parse(code)))


@pytest.mark.parametrize(
    "part, name, legal",
    [
        ("losses", "mmjax.nn.dense", False),
        ("losses", "mmjax.errors.UserError", True),
        ("nn", "mmjax.nn.init", True),
        ("models", "mmjax.losses.contrastive", False),
        ("tasks", "mmjax.tasks.base", True),
        ("tasks", "mmjax.tasks.clip", False),
        ("tasks", "mmjax.parallel.layout", False),
        ("train", "mmjax.tasks.clip", False),
        ("train", "mmjax.tasks.base", True),
        ("train", "mmjax.data.pipeline", True),
        ("data", "jax.numpy", False),
        ("data", "mmjax.tree", False),
        ("evaluators", "mmjax.tasks.base", False),
        ("commands", "mmjax.convert.clip", True),
        ("newcomer", "mmjax.tree", False),
        ("step", ".state.Vars", False),
    ],
)
def test_the_table(part, name, legal):
    assert (forbidden(part, name) == "") == legal
