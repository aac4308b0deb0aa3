"""Text as people paste it: without what terminals, prompts and chats leave around it."""

from __future__ import annotations

import re

__all__ = ["plain_text"]

# Colours and underlines of a terminal. The ESC byte is often lost or spelled out when text is copied.
ESCAPES = re.compile(r"(?:\x1b|\u241b|\^\[|\\x1b|\\e|\\033)?\[\d{0,3}(?:;\d{1,3})*m|\x1b\[K")
SPACES = re.compile("[\u00a0\u2000-\u200b\u202f\u3000\ufeff]")
QUOTE = re.compile(r"^(?:[ \t]*[>|])+[ \t]?", re.MULTILINE)


def plain_text(data: bytes) -> str:
    """Return the text without escape sequences, quotation marks of mails, and spaces that only look like spaces."""
    text = SPACES.sub(" ", data.decode("utf-8", "replace"))
    return QUOTE.sub("", ESCAPES.sub("", text))
