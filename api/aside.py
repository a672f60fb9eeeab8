"""Work that blocks on the disk, done beside the loop in which one process serves everybody."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar, cast

Result = TypeVar("Result")


def aside(function: Callable[..., Result], *arguments: Any, **named: Any) -> Result:
    """What the function gives or raises. Under gevent it runs in a real thread, and others go on meanwhile."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("threading"):
        return function(*arguments, **named)
    pool = sys.modules["gevent"].get_hub().threadpool
    return cast(Result, pool.apply(function, arguments, named))
