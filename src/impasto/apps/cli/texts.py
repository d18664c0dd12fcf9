"""What is typed, and what it means: layers, paintings with weights, regions, what is varied."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from impasto.errors import ImpastoError
from impasto.pictures.files import is_file

YES_OR_NO = {"yes": True, "on": True, "true": True, "no": False, "off": False, "false": False}


COMMAS = LAYERS, NUMBERS = "L[:SHARE],...", "X,..."
"""What help calls the values of options that take several with commas between."""


def number(kind: type, text: str) -> Any:
    """A number, or the text where it is none."""
    with contextlib.suppress(ValueError):
        return kind(text)
    return text


def numbers(texts: Sequence[str]) -> tuple[float, ...]:
    """Finite numbers of at least 0, by commas or one by one."""
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
    """Layers with their shares, by commas or one by one; or the one name that was given.

    `up-to:relu4_1` is all the encoder's style layers up to this one.
    """
    given = [part for text in texts for part in text.split(",") if part]
    if len(given) == 1 and ":" not in given[0] and given != ["up-to"]:
        return given[0]  # it may be one for several
    shares: dict[str, Any] = {}
    for part in given:
        name, _, share = part.partition(":")
        if name != "up-to":
            shares[name] = number(float, share) if share else 1.0
        elif share:
            from impasto.encoders.base import up_to  # imports torch

            shares |= dict.fromkeys(up_to(share), 1.0)
        else:
            raise ImpastoError("up-to needs a layer behind a colon, as in up-to:relu4_1")
    return shares


def weighted(text: str) -> tuple[str, float]:
    """`FILE` or `FILE:WEIGHT`; a file whose own name looks like that is meant as it is."""
    file, _, weight = text.rpartition(":")
    is_whole = not file or is_file(text) or not _is_number(weight)
    return (text, 1.0) if is_whole else (file, float(weight))


def region(text: str) -> tuple[str, str]:
    """`MASK:PAINTING`; where names have colons themselves, at the one that parts two files."""
    pairs = _pairs(text)
    there = [pair for pair in pairs if all(map(is_file, pair))]
    named = [pair for pair in reversed(pairs) if all(pair)]
    for pair in there + named:
        return pair
    raise ImpastoError(
        f"{text!r} is no region; give a mask and a painting, as in sky.png:painting.jpg"
    )


def variation(text: str) -> tuple[str, list[str]]:
    """`OPTION=A,B`: an option, and the text of each value."""
    option, _, values = text.partition("=")
    texts = [value for value in parted(values, ",", _names_files) if value]
    if not option or not texts:
        raise ImpastoError(
            f"{text!r} varies nothing; give an option and its values, as in optimizer=lbfgs,cg"
        )
    return option.removeprefix("--"), texts


def parted(text: str, sign: str = "+", whole: Callable[[str], bool] | None = None) -> list[str]:
    """A text parted at every `sign`, but for those in what is `whole`: names of files there are."""
    whole = whole or names_a_file
    pieces = text.split(sign)
    parts: list[str] = []
    while pieces:
        lengths = range(len(pieces), 0, -1)
        length = next((n for n in lengths if whole(sign.join(pieces[:n]))), 1)
        parts.append(sign.join(pieces[:length]))
        del pieces[:length]
    return parts


def is_value(word: str) -> bool:
    """Whether a word behind an option can be its value, and is not another option."""
    return (
        word == "-" or word[:1] != "-" or word[:2] == "-:" or _is_number(word) or names_a_file(word)
    )


def is_no_file(word: str) -> bool:
    """Whether a word is meant as a value: a number, or a name that no picture has."""
    return not is_file(word) and (_is_number(word) or not {*word} & {*"./\\"}) and word[:1] != "-"


def names_a_file(text: str) -> bool:
    """Whether it is a file that is there, `FILE:WEIGHT`, or `MASK:PAINTING`."""
    return is_file(weighted(text)[0]) or any(all(map(is_file, pair)) for pair in _pairs(text))


def _names_files(text: str) -> bool:
    """Whether it is one of these, or several with a `+` between."""
    return all(map(names_a_file, parted(text)))


def _pairs(text: str) -> list[tuple[str, str]]:
    return [(text[:at], text[at + 1 :]) for at, sign in enumerate(text) if sign == ":"]


def _is_number(text: str) -> bool:
    return not isinstance(number(float, text), str)
