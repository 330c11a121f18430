"""The `mmjax` command: `mmjax VERB ...` runs mmjax/cli/VERB.py.

A verb's module has `add_arguments(parser)`, `run(args) -> int` and `EXAMPLE`, its
`--help`'s last lines; one with `OWN_HELP` adds --help itself. Only the module of the
verb in question is imported, and those import JAX inside `run`, so that `--help` and
typos answer at once.
"""

import argparse
import ast
import contextlib
import importlib
import logging
import os
import pathlib
import pkgutil
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import mmjax
from mmjax import errors, schema
from mmjax.cli import _shares
from mmjax.errors import UserError
from mmjax.parallel import runtime

__path__ = pkgutil.extend_path(__path__, __name__)


def verbs() -> dict[str, str]:
    """name -> the first sentence of its module's docstring, which is not imported."""
    sentences = {}
    for module in pkgutil.iter_modules(__path__):
        if module.name[0] == "_":
            continue
        spec = module.module_finder.find_spec(module.name)
        source = ast.parse(spec.loader.get_source(module.name))
        text = ast.get_docstring(source) or ""
        sentences[module.name] = re.split(r"[.:](?=\s|$)", text)[0].replace("\n", " ")
    return sentences


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises UserError, without abbreviations.

    Paths may begin with `~`, also where a shell leaves that as it is: --workdir=~/run.
    """

    def __init__(self, **kwargs):
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **kwargs)
        self.register(
            "type", pathlib.Path, lambda text: pathlib.Path(text).expanduser()
        )

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def _overview() -> str:
    lines = "\n".join(f"  {verb:<10}  {line}" for verb, line in verbs().items())
    begin = f"{runtime.command()} demo"
    return (
        "usage: mmjax VERB ...\n\nMultimodal vision-language research in JAX.\n\n"
        f"{lines}\n\n`mmjax VERB --help` says more. Begin with:  {begin}"
    )


def _parse(verb: str, argv: Sequence[str]) -> tuple[argparse.Namespace, object]:
    if verb not in (names := verbs()):
        raise UserError(f"no verb {verb!r}{schema.suggest(verb, names)}")
    module = importlib.import_module(f"mmjax.cli.{verb}")
    parser = Parser(
        prog=f"mmjax {verb}",
        description=module.__doc__,
        epilog=module.EXAMPLE,
        add_help=not getattr(module, "OWN_HELP", False),
    )
    module.add_arguments(parser)
    # Overrides are the config's business: argparse does not know the keys.
    overrides = [a for a in argv if a.startswith("--config.")]
    args = parser.parse_args([a for a in argv if not a.startswith("--config.")])
    if overrides:
        if not hasattr(args, "overrides"):
            raise UserError(f"{overrides[0]}: mmjax {verb} takes no --config.KEY=VALUE")
        args.overrides = overrides
    return args, module


def _run(argv: Sequence[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"mmjax {mmjax.__version__}")
        return 0
    args, module = _parse(argv[0], argv[1:])
    if getattr(args, "ray", None) is not None:
        argv = _shares.without_ray(argv)
        _shares.on_ray(main, argv, args.ray)
        return _run(argv)
    return module.run(args)


class _Stderr:
    """Standard error that may be closed at any time: that ends nothing."""

    def __init__(self, stream: Any):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


def _open_streams() -> None:
    """Opens what was closed before the start: the next file would have its number, and
    what libraries print would be written into that."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_RDWR), number)
            setattr(sys, name, open(os.devnull, "r+"))  # noqa: SIM115


def _hush_loaders() -> None:
    """Keeps what Orbax' threads print of a failed read or write off the terminal.

    The first error is raised and becomes our one line. The other arrays' errors, some
    thousand lines, are left in coroutines that nobody awaits and in callbacks to an
    event loop that is closed by then; Python prints those through these two hooks.
    """
    if getattr(sys.unraisablehook, "hushed", False):
        return
    other, uncaught = sys.unraisablehook, sys.excepthook

    def late(error: BaseException | None) -> bool:
        return isinstance(error, RuntimeError) and str(error) == "Event loop is closed"

    def unraisable(info: Any) -> None:
        code = getattr(info.object, "cr_code", None)
        from_orbax = "orbax" in getattr(code, "co_filename", "")
        if not (from_orbax or late(info.exc_value)):
            other(info)

    def exception(kind: type, error: BaseException, trace: Any) -> None:
        if not late(error):
            uncaught(kind, error, trace)

    unraisable.hushed = True
    sys.unraisablehook, sys.excepthook = unraisable, exception


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status.

    0 done; 2 bad input, said in one line on stderr; 3 done, but for records or parts of
    texts that were left out, each said on stderr; 130 interrupted (143 terminated);
    75, of several processes: another was lost (mmjax.parallel.distributed).
    """
    _open_streams()
    with contextlib.redirect_stderr(_Stderr(sys.stderr)):
        return _main(sys.argv[1:] if argv is None else argv)


def _main(argv: Sequence[str]) -> int:
    logging.basicConfig(format="mmjax: %(message)s", level=logging.WARNING)
    # Orbax and the threads it runs in log tracebacks of a failed save, which we report
    # in one line.
    for name in ("absl", "asyncio", "concurrent.futures"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    _hush_loaders()
    try:
        return _run(argv)
    except UserError as e:
        print(f"mmjax: {' '.join(str(e).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("mmjax: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `mmjax inspect D | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as e:
        why = errors.refused(e)
        if not why:
            raise
        print(f"mmjax: {why}", file=sys.stderr)
        return 2
