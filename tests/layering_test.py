"""Who may import whom, and what nobody may write: read from the syntax tree."""

import ast
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# What of ours each part of mmjax may import, besides itself and mmjax.errors.
# A folder stands for all that it holds; the longest entry that fits a file is its row.
ALLOWED = {
    "__init__": "inference",  # the public names, imported when asked for
    "errors": "",
    "tree": "",
    "state": "",
    "schema": "",
    "cache": "",
    "nn": "nn schema tree",
    "losses": "losses",
    "sampling": "sampling",
    "models": "models nn schema",
    "alignment": "alignment metrics.alignment metrics.cca",
    "tasks": "tasks.base tasks.stage1 models nn losses sampling alignment state schema",
    "data": "data schema cache report.fonts",
    "metrics": "metrics schema data.shapes sampling.rerank",
    "report": "report metrics schema",
    "evaluators.probe": "evaluators.probe",
    "evaluators": (
        "evaluators metrics report data parallel alignment state schema "
        "sampling.rerank sampling.calls"
    ),
    "retrieval": "retrieval data parallel schema",
    "serving": "serving schema",
    "judging": "judging serving metrics report schema data.prompts train.lock",
    "convert": "convert models tree schema data.tokenizers",
    "parallel": "parallel cache tree state schema",
    "train.layers": "tree",
    "train.optim": "tree state schema train.layers",
    "train.step": "state tree",
    "train.flops": "",
    "train.timing": "train.flops",
    "train.checksum": "tree",
    "train.array_store": "tree train.checksum",
    "train.checkpoint": ("parallel tree state schema train.checksum train.array_store"),
    "train.metric_writer": "tree state schema",
}
# These put the parts together: they may import all but the members of a family, and
# of each other only what stands further left. None of them imports a command.
ASSEMBLY = ("train", "inference", "planning", "suite", "claims")
ASSEMBLY += ("retrieval.gallery", "judging.draw", "judging.automatic")
ASSEMBLY += ("convert.import_export", "finetune", "inference.pretrained")
ASSEMBLY += ("inference.model", "app", "cli")
FAMILIES = ("nn", "models", "losses", "sampling", "tasks", "convert")
SHARED = (
    "tasks.base",
    "sampling.calls",
    "nn.attention_kernels",
)  # of these families, but of no one member

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
    "jax._src": "private: moves from version to version",
    "jaxlib": "private: jax is its interface",
    "jax.experimental.host_callback": "gone from jax: use jax.pure_callback",
    "flax.nnx": "breaks with some jax versions: use flax.linen",
    "pickle": "runs code from files",
    "dill": "runs code from files",
    "cloudpickle": "runs code from files",
    "joblib": "runs code from files",
}
BANNED_NAMES = {
    "jax.abstract_arrays": "gone from jax: use jax.core.ShapedArray",
    "jax.clear_backends": "gone from jax 0.7",
    "jax.core.ClosedJaxpr": "gone from jax 0.11: use jax.extend.core",
    "jax.core.Jaxpr": "gone from jax 0.11: use jax.extend.core",
    "jax.core.JaxprEqn": "gone from jax 0.11: use jax.extend.core",
    "jax.core.Literal": "gone from jax 0.11: use jax.extend.core",
    "jax.core.Primitive": "gone from jax 0.11: use jax.extend.core",
    "jax.core.Var": "gone from jax 0.11: use jax.extend.core",
    "jax.experimental.shard_map": "gone from jax: use jax.shard_map",
    "jax.lib.xla_bridge": "gone from jax: use jax.extend.backend",
    "jax.linear_util": "gone from jax: use jax.extend.linear_util",
    "jax.sharding.PositionalSharding": "gone from jax: use NamedSharding",
    "jax.tree_map": "gone from jax: use jax.tree.map",
    "jax.tree_util.build_tree": "gone from jax",
    "jax.xla_computation": "gone from jax: use jax.jit(f).lower",
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


def module_name(path: pathlib.Path) -> str:
    """The dotted name that a file of mmjax is imported by."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


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


def longest(part: str, rows) -> str:
    """The longest entry of `rows` that holds the module `part`, or ''."""
    return max((row for row in rows if within(part, (row,))), key=len, default="")


def forbidden(part: str, name: str) -> str:
    """Why the module `part` of mmjax may not import `name`, or ''."""
    if name.startswith("."):
        return "relative imports do not say where things live"
    if within(name, OUTSIDE.get(part.split(".")[0], ())):
        return f"{part} works without {name.split('.')[0]}"
    if within(name, ("mmjax_demo", "mmjax_configs")):
        legal = part == "cli.demo" and within(name, ("mmjax_demo",))
        return "" if legal else "the library knows neither its configs nor its demo"
    if not name.startswith("mmjax.") or within(name, ("mmjax.errors",)):
        return ""
    target = name.removeprefix("mmjax.")
    if target.startswith("_"):
        return ""  # mmjax.__version__
    row, assembly = longest(part, ALLOWED), longest(part, ASSEMBLY)
    if len(row) >= len(assembly) and row:
        legal = ALLOWED[row].split()
        return "" if within(target, legal) else f"{row} may import: {', '.join(legal)}"
    if not assembly:
        return f"{part} is not in the table of tests/layering_test.py"
    place = ASSEMBLY.index(assembly)
    if within(target, ASSEMBLY[place + 1 :]):
        return f"{assembly} stands below {target}"
    member = within(target, FAMILIES) and not within(target, SHARED)
    lazily = place >= ASSEMBLY.index("convert.import_export")
    lazily = lazily and within(target, ("convert",))
    return "shared code names no family" if member and not lazily else ""


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
        part = module_name(path).removeprefix("mmjax.")
        for node in ast.walk(parse(path)):
            for name in imports(node):
                why = forbidden(part, name)
                if why:
                    wrong.append(f"{place}:{node.lineno} imports {name}: {why}")
    assert not wrong, "\n".join(wrong)


def test_no_circles():
    names = {module_name(path): path for path in files("mmjax")}
    arrows = {name: set() for name in names}
    for name, path in names.items():
        for node in ast.walk(parse(path)):
            for full in imports(node):
                # a module, or the module that holds what is imported
                target = full if full in names else full.rpartition(".")[0]
                arrows[name] |= {target} & names.keys() - {name}
    while True:  # what imports nothing that is left can be loaded: drop it
        leaves = [n for n, to in arrows.items() if not to & arrows.keys()]
        if not leaves:
            break
        for name in leaves:
            del arrows[name]
    assert not arrows, f"these import each other in a circle: {sorted(arrows)}"


def test_the_root_stays_small():
    loose = {p.stem for p in (ROOT / "mmjax").glob("*.py")}
    assert loose == {"__init__", "errors", "schema", "tree", "state", "cache"}


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
        "from jax._src import core",
        "from jax.core import Primitive",
        "jax.experimental.shard_map.shard_map(f)",
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
        ("tasks", "mmjax.parallel", False),
        ("train.loop", "mmjax.tasks.clip", False),
        ("train.setup", "mmjax.tasks.base", True),
        ("train.loop", "mmjax.data.pipeline", True),
        ("train.optim", "mmjax.data.pipeline", False),
        ("inference.load", "mmjax.cli.data", False),
        ("inference.load", "mmjax.convert.read", False),
        ("data", "jax.numpy", False),
        ("data", "mmjax.tree", False),
        ("evaluators", "mmjax.tasks.base", False),
        ("cli.convert", "mmjax.convert.clip", True),
        ("newcomer", "mmjax.tree", False),
        ("train.step", ".state.Vars", False),
        ("train.step", "mmjax.tasks.base", False),
    ],
)
def test_the_table(part, name, legal):
    assert (forbidden(part, name) == "") == legal
