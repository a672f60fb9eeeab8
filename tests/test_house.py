"""The tree keeps the rules of the house: where things lie, how long they are, and what must not be in them."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from tree import ROOT, parse, read, tracked, under

TOP_LEVEL = {
    "api", "tasks", "sql", "supabase", "deploy", "tests", "docs", ".ci", ".github", "Procfile", "pyproject.toml",
    "requirements.txt", "requirements-dev.txt", "requirements-bench.txt", "README.md", "Makefile", "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md", "LICENSE", ".gitignore", ".dockerignore", ".env.example", ".editorconfig",
}  # fmt: skip
MOST_LINES = 400
MOST_FUNCTION_LINES = 60
# Spelled with brackets, so that this file does not contain what it looks for.
REGISTRY_HOSTS = re.compile(r"python[h]osted\.|py[p]i\.(org|io)|npm[j]s\.(org|com)|deb\.debia[n]\.")
MACHINE_PATHS = re.compile(r"/[w]ork/(main|shared|venv)|/[r]oot/\.pyenv")
UNFINISHED = re.compile(
    r"\b(TODO|FIXME|XXX|raise NotImplementedError|(?i:for now|simplified|placeholder|not implemented))\b"
)


def test_only_what_the_design_names_lies_at_the_top() -> None:
    assert {name.split("/")[0] for name in tracked()} <= TOP_LEVEL


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    sources = [name for name in tracked() if name.endswith((".py", ".js", ".css", ".sql"))]
    lengths = {name: len(read(name).splitlines()) for name in sources if not name.startswith("supabase/migrations/")}
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


def test_no_function_is_longer_than_a_screen() -> None:
    long = [
        f"{name}:{node.lineno} {node.name}"
        for name in under("api", "tasks", suffix=".py")
        for node in ast.walk(parse(name))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > MOST_FUNCTION_LINES
    ]
    assert long == []


@pytest.mark.parametrize(("what", "pattern"), [("registry", REGISTRY_HOSTS), ("machine", MACHINE_PATHS)])
def test_no_file_names_a_host_or_path_of_the_workplace(what: str, pattern: re.Pattern[str]) -> None:
    assert [name for name in tracked() if pattern.search(read(name))] == [], what


def test_nothing_says_that_it_is_unfinished() -> None:
    sources = [name for name in tracked() if name.endswith((".py", ".sql", ".js", ".html"))]
    found = [
        f"{name}:{number} {line.strip()}"
        for name in sources
        if not name.startswith("tests/")
        for number, line in enumerate(read(name).splitlines(), start=1)
        if UNFINISHED.search(line)
    ]
    assert found == []


def test_tests_are_flat_so_that_no_folder_shadows_a_package() -> None:
    assert [name for name in under("tests") if name.endswith("__init__.py")] == []


def test_the_supabase_folder_holds_no_python() -> None:
    assert [name for name in under("supabase") if name.endswith((".py", ".pyi", ".pth"))] == []


def test_importing_supabase_never_finds_our_folder_as_a_regular_package() -> None:
    spec = importlib.util.find_spec("supabase")
    assert spec is None or spec.origin is None or not Path(spec.origin).is_relative_to(ROOT / "supabase")


def test_importing_the_package_runs_no_step_library() -> None:
    heavy = ("pypdfium2", "pypdf", "pikepdf", "lxml", "docx", "vaderSentiment", "openai")
    front = "tasks.ledger, tasks.pipeline, tasks.documents.kinds"
    code = f"import sys, {front}; print([name for name in {heavy!r} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert ran.stdout.strip() == "[]"


def test_the_licence_is_there_and_named() -> None:
    text = " ".join(read("LICENSE").split())
    assert "Apache License Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_make_help_lists_every_target() -> None:
    phony = re.search(r"^\.PHONY: (.+)$", read("Makefile"), re.MULTILINE)
    assert phony is not None
    targets = set(phony[1].split())
    shown = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert set(re.findall(r"^ +make ([a-z-]+)", shown.stdout, re.MULTILINE)) == targets
    assert {"run", "test", "lint", "format", "install", "lock", "clean", "help"} <= targets


def test_the_script_of_ci_is_a_program_and_runs_what_the_readme_says() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert [line.split()[1] for line in script.read_text().splitlines() if line.startswith("make ")] == [
        "install-dev", "lint", "test",
    ]  # fmt: skip


def test_every_process_of_the_procfile_can_start() -> None:
    processes = dict(line.split(": ", 1) for line in read("Procfile").splitlines())
    assert set(processes) == {"release", "web", "worker"}
    web = re.fullmatch(r'gunicorn --config (\S+) "(\w+):(\w+)\(\)"', processes.pop("web"))
    assert web is not None
    assert (ROOT / web[1]).is_file()
    assert callable(getattr(import_module(web[2]), web[3]))
    assert [line for line in processes.values() if line.split()[0] != "ledgerline"] == []
    commands = import_module("tasks.command.program")
    for line in processes.values():
        assert commands.program.get_command(None, line.split()[1]), line
