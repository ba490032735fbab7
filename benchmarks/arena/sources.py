"""Which code a measurement was made by: what is kept is named by it, so nothing stale is read."""

import ast
import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path

__all__ = ["code_of"]

ROOT = Path(__file__).parents[2]
WITHIN = "benchmarks"


def code_of(*modules: str) -> str:
    """Hash of modules of this package and of all that they import from it.

    Comments, docstrings and formatting do not count. The library itself does not either: a run of
    an hour would be lost at every edit there. `python -m benchmarks.bench --fresh` forgets it all.

    Example:
        >>> code_of("benchmarks.arena.store") == code_of("benchmarks.arena.store")
        True
        >>> code_of("benchmarks.arena.store") == code_of("benchmarks.arena.training")
        False
    """
    digest = hashlib.sha256()
    for name in sorted(_reached(modules)):
        digest.update(f"{name} {_meaning(name)}".encode())
    return digest.hexdigest()[:10]


def _reached(modules: Iterable[str]) -> set[str]:
    reached, waiting = set(), set(modules)
    while waiting:
        name = waiting.pop()
        reached.add(name)
        waiting |= _imports(name) - reached
    return reached


@functools.cache
def _tree(name: str) -> ast.Module:
    tree = ast.parse(_file(name).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [part for part in body if not _is_text(part)]  # pyright: ignore
    return tree


@functools.cache
def _meaning(name: str) -> str:
    return hashlib.sha256(ast.dump(_tree(name)).encode()).hexdigest()


def _imports(name: str) -> set[str]:
    found = set()
    for node in ast.walk(_tree(name)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{WITHIN}."):
            found.add(node.module or "")
    return {module for module in found if _file(module).exists()}


def _file(name: str) -> Path:
    path = ROOT.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
