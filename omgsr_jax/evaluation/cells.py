"""Names of files and messages, which may hold anything, as cells of a CSV and as Markdown."""

import re
from html import escape

# What a spreadsheet takes for the beginning of a formula, unless it is a number.
_FORMULA = re.compile(r"[=+\-@\t\r\n]")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
_MARKUP = re.compile(r"([\\`*\[\]|~!]|(?<!\w)_|_(?!\w)|(?<=www)\.|:(?=//))")


def csv_cell(text: str) -> str:
    """A text that no spreadsheet computes."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def markdown(text: str) -> str:
    """A text that is shown as it is, in one line: no markup, no link, no cell of its own."""
    line = " ".join(text.splitlines())
    return _MARKUP.sub(r"\\\1", escape(line, quote=False))
