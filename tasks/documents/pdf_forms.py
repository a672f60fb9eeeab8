"""Forms of a PDF: drawings that pages and other forms place by name. A few hundred bytes of them can draw for ever."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from graphlib import CycleError, TopologicalSorter
from math import inf
from pathlib import Path
from typing import Any

import pikepdf

MAX_DRAWINGS = 100_000

_Id = tuple[int, int]
# Without one of these there are no forms: most files of letters have none, and are not opened for it.
_HINTS = (b"/Form", b"/ObjStm")


@contextmanager
def bounded(path: Path) -> Iterator[tuple[Path, bool]]:
    """The file itself; or, where its forms would draw without end, a copy whose forms place no others, and True.

    Engines in native code draw such a file until their memory or time is over.
    """
    if not _may_have_forms(path):
        yield path, False
        return
    with ExitStack() as stack:
        try:
            pdf = stack.enter_context(pikepdf.open(path))
            endless = count_drawings(dict(_forms(pdf))) > MAX_DRAWINGS
        except (pikepdf.PdfError, RecursionError, ValueError):  # it is for the engines to say what is wrong with it
            endless = False
        if endless:
            copy = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "bounded.pdf"
            _cut(pdf, copy)
        yield (copy if endless else path), endless


def count_drawings(forms: dict[_Id, list[_Id]]) -> float:
    """How many drawings the largest of these forms comes to, itself included; infinite when one contains itself.

    `forms`: those that each one names.
    """
    drawings: dict[_Id, float] = {}
    try:
        for form in TopologicalSorter(forms).static_order():
            drawings[form] = 1 + sum(drawings[each] for each in forms.get(form, ()))
    except CycleError:
        return inf
    return max(drawings.values(), default=0)


def _may_have_forms(path: Path) -> bool:
    if not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return any(data.find(hint) >= 0 for hint in _HINTS)


def _cut(pdf: pikepdf.Pdf, target: Path) -> None:
    for form in filter(_is_form, pdf.objects):
        if _named_by(form):
            del form.Resources.XObject
    pdf.save(target)


def _forms(pdf: pikepdf.Pdf) -> Iterator[tuple[_Id, list[_Id]]]:
    for form in filter(_is_form, pdf.objects):
        yield form.objgen, [named.objgen for named in _named_by(form)]


def _is_form(each: Any) -> bool:
    return isinstance(each, pikepdf.Stream) and each.get("/Subtype") == "/Form"


def _named_by(form: Any) -> list[Any]:
    resources = form.get("/Resources")
    named = resources.get("/XObject") if isinstance(resources, pikepdf.Dictionary) else None
    return list(named.values()) if isinstance(named, pikepdf.Dictionary) else []
