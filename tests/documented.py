"""The blocks of shell and Python in README and docs, and the commands in them.

The line before a block may be a comment that says how the block is tested:

    <!-- not run here: REASON -->        only its commands and options are checked
    <!-- slow: REASON -->                it is run by `pytest -m slow`
    <!-- .ci/run executes this block --> as it says

A block without such a line is run by every `pytest`.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
IN_CI = "<!-- .ci/run executes this block -->"

_MARK = re.compile(r"<!-- (not run here|slow): (\S.*) -->")
_FENCE = re.compile(r"```(\S*)\n(.*?)\n?```", re.DOTALL)
_INLINE = re.compile(r"`((?:python scripts|omgsr \w+ -)[^`]*)`")
_ASSIGNMENT = re.compile(r"\w+=.*")


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    text: str
    how: str  # run, slow, not run here, or in CI

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Every fenced block of a page, in order."""
    text, found = page.read_text(), []
    for fence in re.finditer(r"^```.*?^```$", text, re.DOTALL | re.MULTILINE):
        before = text[: fence.start()].rstrip("\n").rpartition("\n")[2]
        language, content = _FENCE.fullmatch(fence[0]).groups()
        line = text.count("\n", 0, fence.start()) + 1
        found.append(Block(page, line, language, content, _how(before)))
    return found


def _how(before: str) -> str:
    if before == IN_CI:
        return "in CI"
    mark = _MARK.fullmatch(before)
    return mark[1] if mark else "run"


def commands(text: str) -> list[list[str]]:
    """The commands of a block of shell, as lists of words, without comments and variables."""
    found = []
    for line in text.replace("\\\n", "").splitlines():
        words = shlex.split(line, comments=True)
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            command, words = words[:end], words[end + 1 :]
            while command and _ASSIGNMENT.fullmatch(command[0]):
                del command[0]
            found.append(command)
    return [command for command in found if command]


def inline_commands(page: Path) -> list[list[str]]:
    """Commands with options in a page's sentences; "..." stands for what was left out."""
    sentences = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    found = [shlex.split(code.replace("\n", " ")) for code in _INLINE.findall(sentences)]
    return [command for command in found if "..." not in command]
