"""The files of the repository, as tests look at them: what git tracks, or, without git, what is there."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_MADE_HERE = re.compile(
    r"(^|/)(\.git|\.venv|\.ledgerline|\.env|__pycache__|build|dist|\.[a-z_]+_cache|[^/]+\.egg-info)(/|$)"
)


@cache
def tracked() -> tuple[str, ...]:
    """Paths of the repository's files, relative to its root, with forward slashes."""
    git = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True)
    names = git.stdout.split("\0") if git.returncode == 0 and git.stdout else _walk()
    return tuple(sorted(name for name in names if name and (ROOT / name).is_file()))


def _walk() -> list[str]:
    names = (path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*"))
    return [name for name in names if not _MADE_HERE.search(name)]


def under(*folders: str, suffix: str = "") -> list[str]:
    """Tracked files in these folders, by suffix."""
    return [name for name in tracked() if name.startswith(tuple(f"{f}/" for f in folders)) and name.endswith(suffix)]


def read(name: str) -> str:
    """Text of a file, by its path in the repository. What is not text is read as if it were Latin-1."""
    data = (ROOT / name).read_bytes()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def parse(name: str) -> ast.Module:
    """Syntax tree of a Python file."""
    return ast.parse(read(name), filename=name)


def project() -> dict[str, Any]:
    """pyproject.toml."""
    return tomllib.loads(read("pyproject.toml"))


def strings(name: str) -> list[tuple[int, str]]:
    """The string literals of a Python file with their lines, docstrings left out; f-strings with {} for their holes."""
    tree = parse(name)
    documentation = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            text = "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
            found.append((node.lineno, text))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            found.append((node.lineno, node.value))
    return found
