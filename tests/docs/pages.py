"""The pages for people, and what stands in them."""

import re
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
DOCS = PROJECT / "docs"
PAGES = sorted([*PROJECT.glob("*.md"), *DOCS.rglob("*.md")])
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def links(text: str) -> Iterator[str]:
    """Where a page's links lead, but for those into the Internet."""
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http:", "https:")):
            yield target


def anchors(text: str) -> set[str]:
    """The names of its headings in links, as GitHub makes them."""
    heads = re.findall(r"^#+ (.*)$", _FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks in a language."""
    return [body for kind, body in _FENCE.findall(text) if kind == language]


def code(text: str) -> Iterator[str]:
    """What is set as code: lines of blocks, and words in backticks. What stands apart in a line of
    a block explains it, and is left out."""
    for _, body in _FENCE.findall(text):
        yield from map(_typed, body.splitlines())
    rest = _FENCE.sub("", text)
    inside, before = False, ""
    for line in rest.splitlines():
        inside = line.startswith("    ") and (inside or not before)
        if inside:
            yield _typed(line.strip())
        before = line
    yield from (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", rest))


def _typed(line: str) -> str:
    return re.split(r" {2,}", line)[0]


def commands(text: str) -> Iterator[list[str]]:
    """The command lines of natsup's in its code, in words, without natsup itself."""
    for line in code(text):
        # "problem: natsup does not" is a message, and no command
        for found in re.findall(r"(?:^|(?<!:)[\s/|&'])natsup((?: [^|&#;>']+)?)", f"{line} "):
            words = found.removeprefix(" natsup").split()  # an image of that name
            if words and re.fullmatch(r"-{0,2}[a-z][a-z-]*", words[0]):
                yield words
