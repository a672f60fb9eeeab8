"""What is imported is declared, what is declared is used, and what is declared is locked."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import packages_distributions

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from tree import parse, project, read, tracked, under

OWN = {"api", "tasks", "tests"}
LOCKS = ["requirements.txt", "requirements-dev.txt", "requirements-bench.txt"]
STARTED_NOT_IMPORTED = {"gunicorn", "gevent"}
PIN = re.compile(
    r"^([A-Za-z0-9_.-]+)==(\S+?)(?: ;[^\\]*)? \\\n((?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE
)


def test_every_package_that_is_imported_is_declared() -> None:
    owners = packages_distributions()
    declared = set(_declared())
    undeclared = {
        f"{path} imports {package}"
        for path in under("api", "tasks", suffix=".py")
        for package in _imported(path)
        if not {canonicalize_name(owner) for owner in owners.get(package, ["?"])} & declared
    }
    assert undeclared == set()


def test_every_package_that_is_declared_is_used() -> None:
    names: dict[str, set[str]] = {}
    for package, owners in packages_distributions().items():
        for owner in owners:
            names.setdefault(canonicalize_name(owner), set()).add(package)
    code = "\n".join(read(path) for path in under("api", "tasks", suffix=".py"))
    unused = [
        name
        for name in _declared()
        if name not in STARTED_NOT_IMPORTED and not any(re.search(rf"\b{re.escape(n)}\b", code) for n in names[name])
    ]
    assert unused == []


@pytest.mark.parametrize("lock", LOCKS)
def test_every_declared_package_is_locked_within_its_range(lock: str) -> None:
    pins = _pins(lock)
    extra = lock.removeprefix("requirements").removeprefix("-").removesuffix(".txt")
    declared = _declared() | (_declared(extra) if extra else {})
    assert {name for name in declared if name not in pins} == set()
    assert {name for name, wanted in declared.items() if not wanted.specifier.contains(pins[name])} == set()


@pytest.mark.parametrize("lock", LOCKS)
def test_the_locks_hold_pins_and_hashes_and_nothing_else(lock: str) -> None:
    rest = PIN.sub("", read(lock))
    assert [line for line in rest.splitlines() if line.strip() and not line.lstrip().startswith("#")] == []
    assert not re.search(r"\w://", read(lock))


def test_tests_run_with_the_versions_that_production_runs_with() -> None:
    assert _pins("requirements.txt").items() <= _pins("requirements-dev.txt").items()


def test_installing_needs_nothing_that_is_not_locked() -> None:
    needed = [Requirement(line) for line in project()["build-system"]["requires"]]
    pins = _pins("requirements.txt")
    assert [str(one) for one in needed if not one.specifier.contains(pins[canonicalize_name(one.name)])] == []


def test_the_console_script_and_every_package_would_be_installed() -> None:
    folders = {
        path.rsplit("/", 1)[0] for path in tracked() if path.endswith(".py") and path.split("/")[0] in OWN - {"tests"}
    }
    assert {folder for folder in folders if f"{folder}/__init__.py" not in tracked()} == set()


def _imported(path: str) -> set[str]:
    found = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found - OWN - set(sys.stdlib_module_names)


def _declared(extra: str = "") -> dict[str, Requirement]:
    parts = project()["project"]
    lines = parts["optional-dependencies"][extra] if extra else parts["dependencies"]
    return {canonicalize_name(one.name): one for one in map(Requirement, lines)}


def _pins(lock: str) -> dict[str, Version]:
    return {canonicalize_name(name): Version(version) for name, version, _ in PIN.findall(read(lock))}
