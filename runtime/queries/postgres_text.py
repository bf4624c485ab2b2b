"""PostgreSQL's text of statements, as the server itself would split it: which statements there are, and the words of each. Pure.

A parser that takes a string for longer, or for shorter, than the server does can be told one thing and have the server do
another. So this follows the server's own lexical rules (PostgreSQL's documentation, 4.1 Lexical Structure), with
`standard_conforming_strings` on, which every session of ours has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

#: word: an identifier or keyword as it stands, in lower case. name: a quoted identifier, without its quotes. string: a
#: constant's text, of whatever quoting. backslashed: the same with escapes in it, as they stand. escaped: an identifier of the
#: form U&"…", whose letters may be written as numbers.
Kind = Literal["word", "name", "string", "backslashed", "escaped", "sign"]

_TOKEN = re.compile(
    r"""
      (?P<space>\s+|--[^\n\r]*)
    | (?P<comment>/\*)
    | (?P<escaped>[uU]&"(?:[^"]|"")*")
    | (?P<backslashed>[eE]'(?:[^'\\]|\\.|'')*')
    | (?P<string>'(?:[^']|'')*')
    | (?P<name>"(?:[^"]|"")*")
    | (?P<dollar>\$(?P<tag>(?:[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_\x80-\U0010ffff]*)?)\$(?P<body>.*?)\$(?P=tag)\$)
    | (?P<word>[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_$\x80-\U0010ffff]*)
    | (?P<sign>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT = re.compile(r"/\*|\*/")


@dataclass(frozen=True)
class Token:
    """One token of a statement."""

    kind: Kind
    text: str


def statements(text: str) -> list[list[Token]]:
    """The statements of `text`, each as its tokens without comments; none for what has no token between two semicolons."""
    found: list[list[Token]] = [[]]
    for token in _tokens(text):
        if token == Token("sign", ";"):
            found.append([])
        else:
            found[-1].append(token)
    return [statement for statement in found if statement]


def _tokens(text: str) -> Iterator[Token]:
    place = 0
    while match := _TOKEN.match(text, place):
        place = match.end()
        kind, value = match.lastgroup, match[0]
        if match["comment"]:
            place = _after_comment(text, place)
        elif match["dollar"]:
            yield Token("string", match["body"])
        elif kind == "backslashed":
            yield Token("backslashed" if "\\" in value else "string", value[2:-1])
        elif kind == "string":
            yield Token("string", value[1:-1].replace("''", "'"))
        elif kind == "name":
            yield Token("name", value[1:-1].replace('""', '"'))
        elif kind == "escaped":
            yield Token("escaped", value)
        elif kind == "word":
            yield Token("word", value.lower())
        elif kind == "sign":
            yield Token("sign", value)


def _after_comment(text: str, place: int) -> int:
    """Where the comment ends that began before `place`: comments nest. The end of the text for one that does not end."""
    depth = 1
    while depth:
        match = _COMMENT.search(text, place)
        if match is None:
            return len(text)
        depth += 1 if match[0] == "/*" else -1
        place = match.end()
    return place
