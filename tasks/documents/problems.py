"""Every reason why a document cannot be read: one stable code, one sentence for the writer.

Light on purpose (stdlib only), because the front door refuses some of them before a job exists.
"""

from __future__ import annotations

from tasks.errors import Permanent, Refused

SENTENCES = {
    "corrupt_file": "This file is damaged and we could not read it. Please open it in your editor, save it again and "
    "upload the new copy.",
    "drm_protected": "This e-book is locked by copy protection. Please upload the manuscript it was made from.",
    "empty_file": "This file is empty. Please check that you chose the right one.",
    "encrypted_file": "This file is locked with a password. Please save a copy without a password and upload that.",
    "encrypted_pdf": "This PDF is locked with a password. Please save a copy without a password and upload that.",
    "needs_ocr": "This PDF holds pictures of pages, not text. Please upload the original manuscript, or run text "
    "recognition (OCR) on it first.",
    "no_text": "We found no text in this file.",
    "not_text": "This file does not contain readable text. Please upload the manuscript as a Word, PDF or text file.",
    "too_large": "There is far more text in this file than in any book, so we stopped reading. Please split it.",
    "too_many_pages": "This PDF has too many pages for one document. Please split it and upload the parts.",
    "type_mismatch": "What is in this file does not fit its name. Please save it again in the format you want to send.",
    "unsafe_xml": "This file contains instructions that no word processor writes, so we did not open it. Please save "
    "it again from your editor.",
    "unsupported_type": "We cannot read this kind of file. Please upload a Word, PDF, EPUB, OpenDocument, RTF, HTML, "
    "Markdown or text file.",
    "zip_bomb": "This file unpacks to an unreasonable size, so we did not open it. Please save it again from your "
    "editor.",
}

STATUS = {"unsupported_type": 415}


def unreadable(code: str, detail: str = "") -> Permanent:
    """The error a step raises. `detail` is for the operator: no manuscript text in it."""
    return Permanent(code, SENTENCES[code], detail=detail[:500])


def refused(code: str, sentence: str = "", detail: str = "") -> Refused:
    """The error the front door raises: 415 for a kind we never read, 422 for a file we cannot use."""
    return Refused(code, sentence or SENTENCES[code], detail=detail[:500], status=STATUS.get(code, 422))
