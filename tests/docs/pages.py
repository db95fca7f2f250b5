"""What the pages show: commands, links, names."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]

FENCE = re.compile(r"^( *)(```+)[^\n`]*\n(.*?)^\1\2 *$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^|\n)\n((?:(?: {4}|\t).*\n|\n)+)")
INLINE = re.compile(r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)")
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
AS_MODULE = re.compile(r"^\s*(?:torchrun|python)\s.*-m mae_bench\.cli\b")
COMMENT = re.compile(r"(?:^|\s)#\s.*$")


@dataclass(frozen=True)
class Command:
    """A command that a page shows."""

    page: Path
    words: tuple[str, ...]
    """After the name of the program."""
    whole: bool
    """Whether it stands in a block, to be typed as it is, and not in a sentence or with words left out."""

    def __str__(self) -> str:
        return f"{self.page.name}: {' '.join(self.words)}"


def blocks(text: str) -> list[str]:
    """What stands between fences or is indented."""
    rest = FENCE.sub("\n", text)
    return [found[2] for found in FENCE.findall(text)] + list(INDENTED.findall(rest))


def inlines(text: str) -> list[str]:
    """What stands between backquotes within sentences, on one line each."""
    return [" ".join(found.split()) for found in INLINE.findall(FENCE.sub("\n", text))]


def commands(page: Path, text: str, program: str) -> Iterator[Command]:
    """Every use of a program on a page, one for each of several alternatives (`timm|hf`)."""
    for block in blocks(text):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"\s(?:&&?|;|\|)\s", AS_MODULE.sub(program, COMMENT.sub("", line))):
                if part.split()[:1] == [program]:
                    yield from _alternatives(page, part, whole="..." not in part.split())
    for inline in inlines(text):
        if inline.split()[:1] == [program] and len(inline.split()) > 1:
            yield from _alternatives(page, inline, whole=False)


def _alternatives(page: Path, line: str, *, whole: bool) -> Iterator[Command]:
    bare = re.sub(r"\[(-[^\]]*)\]", r"\1", line.replace("\\|", "|"))  # `[--all]` is shown where it may be left out
    words = [word.removesuffix("...").rstrip(",;") for word in shlex.split(bare)[1:]]
    words = [word for word in words if word]
    most = max((len(word.split("|")) for word in words), default=1)
    for turn in range(most):
        choices = (word.split("|") for word in words)
        yield Command(page, tuple(choice[min(turn, len(choice) - 1)] for choice in choices), whole)


def anchor(heading: str) -> str:
    """The name that a heading gets as the target of links, on GitHub as in the site."""
    plain = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", plain))


def anchors(text: str) -> set[str]:
    """Those of all headings of a page."""
    return {anchor(line.lstrip("#")) for line in FENCE.sub("\n", text).splitlines() if line.startswith("#")}
