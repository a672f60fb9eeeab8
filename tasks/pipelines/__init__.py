"""Every pipeline of the house: one module (or package) each, found by being there."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from tasks.pipeline import Pipeline


@cache
def declared() -> dict[str, Pipeline]:
    """All declared pipelines by name. Imports the steps: for workers and releases, never for the API."""
    found: dict[str, Pipeline] = {}
    for module in pkgutil.iter_modules(__path__):
        for value in vars(importlib.import_module(f"{__name__}.{module.name}")).values():
            if isinstance(value, Pipeline):
                found[value.name] = value
    return found
