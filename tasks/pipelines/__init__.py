"""Every pipeline of the house: one module (or package) each, found by being there."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from functools import cache
from types import ModuleType

from tasks.pipeline import Pipeline, PipelineInvalid


@cache
def declared(packages: tuple[str, ...] = (__name__,)) -> dict[str, Pipeline]:
    """All pipelines declared in these packages, by name. Imports the steps: for workers and releases, never the API.

    Raises PipelineInvalid when two have the same name, ImportError when a package or module cannot be imported.
    """
    found: dict[str, Pipeline] = {}
    for module in modules(packages):
        for pipeline in pipelines_of(importlib.import_module(module)):
            if found.setdefault(pipeline.name, pipeline) is not pipeline:
                raise PipelineInvalid(f"there are two pipelines named {pipeline.name!r}; the second is in {module}")
    return found


def modules(packages: tuple[str, ...]) -> list[str]:
    """The names of the modules in which pipelines are declared."""
    names = []
    for package in packages:
        path = getattr(importlib.import_module(package), "__path__", None)
        found = [f"{package}.{module.name}" for module in pkgutil.iter_modules(path)] if path else [package]
        names += sorted(found)
    return names


def pipelines_of(module: ModuleType) -> Iterator[Pipeline]:
    """The pipelines that a module declares."""
    return (value for value in vars(module).values() if isinstance(value, Pipeline) and value.module == module.__name__)
