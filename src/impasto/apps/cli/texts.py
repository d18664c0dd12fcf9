"""The meaning of what users type: layers, paintings with weights, regions, variations."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from typing import Any

from impasto.errors import ImpastoError
from impasto.pictures.files import is_file

YES_NO = {"yes": True, "on": True, "true": True, "no": False, "off": False, "false": False}

COMMAS = LAYERS, NUMBERS = "L[:SHARE],...", "X,..."
"""The values, as help shows them, of options that take several with commas between."""


def number(kind: type, text: str) -> Any:
    """The number that a text stands for, or the text itself if it is no number."""
    with contextlib.suppress(ValueError):
        return kind(text)
    return text


def numbers(texts: Sequence[str]) -> tuple[float, ...]:
    """Finite numbers of at least 0, from texts that may hold several with commas between."""
    parts = [part for text in texts for part in text.split(",")]
    for part in parts:
        if not _is_number(part) or not 0 <= float(part) < float("inf"):
            raise ImpastoError(f"{part!r} is no number of at least 0; give one such as 0.5")
    return tuple(map(float, parts))


def sides(text: str) -> tuple[Any, ...]:
    """`WxH`, or `W` for both."""
    parts = [number(int, part) for part in text.lower().split("x")]
    return tuple(parts * 2 if len(parts) == 1 else parts)


def layers(texts: Sequence[str]) -> str | dict[str, Any]:
    """Layers with their shares, from texts that may hold several; a single name stays a text."""
    given = [part for text in texts for part in text.split(",") if part]
    if len(given) == 1 and ":" not in given[0]:
        return given[0]  # it may name a set of layers
    parts = [re.split("(?<!^up-to):", part, maxsplit=1) for part in given]
    return {name: number(float, share[0]) if share else 1.0 for name, *share in parts}


def weighted(text: str) -> tuple[str, float]:
    """The file and weight of `FILE` or `FILE:WEIGHT`; the name of an existing file is not split."""
    file, _, weight = text.rpartition(":")
    is_whole = not file or is_file(text) or not _is_number(weight)
    return (text, 1.0) if is_whole else (file, float(weight))


def region(text: str) -> tuple[str, str]:
    """The two files of `MASK:PAINTING`; if names contain colons, the split where both exist."""
    pairs = _pairs(text)
    there = [pair for pair in pairs if all(map(is_file, pair))]
    named = [pair for pair in reversed(pairs) if all(pair)]
    for pair in there + named:
        return pair
    raise ImpastoError(
        f"{text!r} is no region; give a mask and a painting, as in sky.png:painting.jpg"
    )


def variation(text: str) -> tuple[str, list[str]]:
    """The option of `OPTION=A,B`, and the text of each value."""
    option, _, values = text.partition("=")
    texts = [value for value in parted(values, ",", _names_files) if value]
    if not option or not texts:
        raise ImpastoError(
            f"{text!r} varies nothing; give an option and its values, as in optimizer=lbfgs,cg"
        )
    return option.removeprefix("--"), texts


def is_value(word: str) -> bool:
    """Whether the word after an option can be its value, and is not another option."""
    return word[:1] != "-" or word[:2] in ("-", "-:") or _is_number(word) or names_a_file(word)


def is_no_file(word: str) -> bool:
    """Whether a word must be a value: it is no file, and a number or a name that no picture has."""
    return not is_file(word) and (_is_number(word) or not {*word} & {*"./\\"}) and word[:1] != "-"


def names_a_file(text: str) -> bool:
    """Whether a text names existing files: as `FILE`, `FILE:WEIGHT` or `MASK:PAINTING`."""
    return is_file(weighted(text)[0]) or any(all(map(is_file, pair)) for pair in _pairs(text))


def parted(text: str, sign: str = "+", whole: Callable[[str], bool] = names_a_file) -> list[str]:
    """Split a text at every `sign`, but not inside a part that is `whole` (an existing file)."""
    pieces = text.split(sign)
    parts: list[str] = []
    while pieces:
        lengths = range(len(pieces), 0, -1)
        length = next((n for n in lengths if whole(sign.join(pieces[:n]))), 1)
        parts.append(sign.join(pieces[:length]))
        del pieces[:length]
    return parts


def _names_files(text: str) -> bool:
    """Whether every part of a text, split at `+`, names existing files."""
    return all(map(names_a_file, parted(text)))


def _pairs(text: str) -> list[tuple[str, str]]:
    return [(text[:at], text[at + 1 :]) for at, sign in enumerate(text) if sign == ":"]


def _is_number(text: str) -> bool:
    return not isinstance(number(float, text), str)
