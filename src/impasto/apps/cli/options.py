"""The options of the commands, made from the settings.

Every setting is an option: its name, default, range and meaning are all in `impasto.settings`. Only
the options that were given reach a command, so that presets and defaults keep their values. A text
that cannot be parsed is passed on, and the settings say in their error what they allow.
"""

from __future__ import annotations

import functools
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict, TypeVar, Unpack

from cyclopts import Group, Parameter
from cyclopts.help import PlainFormatter

from impasto import settings
from impasto.apps.cli import texts as read
from impasto.errors import ImpastoError, nearest
from impasto.settings import Among, AnySettings, Parsed, RunSettings, Settings, hints

_Command = TypeVar("_Command", bound=Callable[..., Any])

# How help shows the values of a type, or those that a function parses.
_SHAPES: dict[Any, str] = {int: "N", float: "X", Path: "FILE", tuple[int, int]: "WxH"}
_SHAPES |= {settings.shares_of: read.LAYERS, settings.parse_memory: "SIZE"}


class Help(PlainFormatter):
    """Prints every option with its text beside it or, if the option is too long, beneath it."""

    def __call__(self, console: Any, options: Any, panel: Any) -> None:
        """Print one group of options."""
        del options
        left = 26 if console.width >= 70 else 8
        lines = [f"{panel.title}:"] if panel.entries else []
        for entry in panel.entries:
            label = "  " + ", ".join(entry.display_labels_with_metavar)
            with console.capture() as told:
                console.print(entry.description, width=10**6)
            width = max(console.width - left, 20)
            default = f"(default {entry.default})" if entry.default else ""
            words = [*told.get().split(), default]
            text = textwrap.wrap(" ".join(words).strip(), width, break_on_hyphens=False)
            beside = len(label) + 2 <= left and text
            lines.append(f"{label:<{left}}{text.pop(0)}" if beside else label)
            lines += [" " * left + line for line in text]
        console.print(*lines, "", sep="\n", markup=False, highlight=False, soft_wrap=True)


def converted(parse: Callable[[list[str]], Any], **told: Any) -> Parameter:
    """A parameter that takes one word each time it is given; `parse` gets all of the words."""

    def convert(_kind: Any, tokens: Sequence[Any]) -> Any:
        return parse([token.value for token in tokens])

    return Parameter(converter=convert, n_tokens=1, **told)


def several(parse: Callable[[str], Any], **told: Any) -> Parameter:
    """A parameter that takes one word each time it is given; `parse` gets each word by itself."""
    return converted(lambda given: tuple(map(parse, given)), **told)


if TYPE_CHECKING:
    File = str
else:
    # Shells complete it as a path; the command gets the text, as a Path would lose the / of `out/`.
    File = Annotated[Path, converted(lambda texts: texts[-1])]


def settings_of(kind: type[AnySettings], **names: str) -> Callable[[_Command], _Command]:
    """Give a command the settings of a kind as options; `names` gives some of them other names.

    The command gets those that the user has given as `**choices`.
    """

    def decorate(command: _Command) -> _Command:
        make: Any = TypedDict  # mypy only knows one with literal fields
        options = make("Choices", _options(kind, names), total=False)
        command.__annotations__["choices"] = Unpack[options]
        command.__dict__["kind"] = kind
        return command

    return decorate


def _options(kind: type[AnySettings], names: Mapping[str, str]) -> dict[str, Any]:
    told = _explained(kind)
    own, common = Group("Settings", sort_key=3), Group("Settings of every run", sort_key=4)
    options: dict[str, Any] = {}
    presets = settings.PRESETS if issubclass(kind, Settings) else {}
    for name, annotation in _annotations(kind).items():
        option = names.get(name, _option(name))
        default = [_shown(getattr(kind, name, None))]
        default += [f"{p}: {_shown(v[name])}" for p, v in presets.items() if name in v]
        words = settings.words_of(annotation)
        among = [f"{word} ({row.help})" for word, row in words.items() if hasattr(row, "help")]
        text = told.get(name, "")  # python -OO has no docstrings
        text += f" One of {', '.join(among)}." if among else ""
        about: dict[str, Any] = {
            "name": f"--{option}",
            "help": f"{text} (default {'; '.join(default)})",
            "group": common if name in RunSettings.__dataclass_fields__ else own,
        }
        if annotation is bool:
            negative = f"--no-{option}" if getattr(kind, name) else ()
            options[name] = Annotated[bool, Parameter(negative=negative, **about)]
            continue
        about["metavar"] = "NAME" if among else _metavar(annotation)
        is_file = Path in settings.options(annotation)
        hint = Literal[tuple(words)] if words else Path if is_file else tuple[str, ...]
        parse = functools.partial(meaning, annotation)
        options[name] = Annotated[hint, converted(parse, show_choices=False, **about), _ANY]
    return options


class _Any:
    """Tells pydantic to accept any value. Where a program has loaded it, cyclopts calls it."""

    def __get_pydantic_core_schema__(self, *_: Any) -> dict[str, str]:
        return {"type": "any"}


_ANY = _Any()


def _annotations(kind: Any) -> dict[str, Any]:
    preset = {"preset": Annotated[str, Among(settings.PRESETS)]}
    return {**(preset if issubclass(kind, Settings) else {}), **hints(kind)}


def _explained(kind: type[AnySettings]) -> dict[str, str]:
    """The help text of each setting, with other settings as options."""
    told = {
        "preset": "settings as published, instead of impasto's own.",
        **settings.explained(kind),
    }
    known = {name: f"--{_option(name)}" for name in told}
    return {
        name: re.sub(r"`(\w+)`", lambda word: known.get(word[1], word[1]), text)
        for name, text in told.items()
    }


def _kinds(annotation: Any) -> list[Any]:
    """The types of a setting's values, without their bounds, and the functions that parse them."""
    kinds: list[Any] = []
    for member in settings.options(annotation):
        extras = getattr(member, "__metadata__", ())
        kinds += [extra.parse for extra in extras if isinstance(extra, Parsed)]
        kinds.append(member.__origin__ if extras else member)
    return kinds


def _metavar(annotation: Any) -> str:
    shapes = filter(None, map(_SHAPES.get, _kinds(annotation)))
    return "|".join([*shapes, *settings.words_of(annotation)]) or "NAME"


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def meaning(annotation: Any, given: Sequence[str]) -> Any:
    """The value that the texts mean for a setting; only the last counts, except for layers."""
    text, kinds = given[-1], _kinds(annotation)
    if text == "none" and NoneType in kinds:
        return None
    if settings.shares_of in kinds:
        return read.layers(given)
    if tuple[int, int] in kinds:
        return read.sides(text)
    for kind in (int, float):
        if kind in kinds:
            return read.number(kind, text)
    return read.YES_NO.get(text, text) if bool in kinds else text


def varied(variations: Sequence[tuple[str, list[str]]]) -> dict[str, dict[str, Any]]:
    """The arguments of `stylize` to vary, each with its values by their texts (none means None).

    Raises:
        ImpastoError: there is no such option, or it is varied twice.
    """
    known = _annotations(Settings)
    names = {_option(name): name for name in known}
    names |= {"style": "painting", "region": "regions"}
    parses: dict[str, Callable[[str], Any]] = {
        "style": lambda text: [*map(read.weighted, read.parted(text))],
        "region": lambda text: [*map(read.region, read.parted(text))],
        "style-layer": lambda text: read.layers([text.replace("+", ",")]),
    }
    result: dict[str, dict[str, Any]] = {}
    for option, values in variations:
        if option not in names:
            near = nearest(option, sorted(names))
            raise ImpastoError(f"there is no option {option!r} to vary; did you mean {near!r}?")
        if names[option] in result:
            raise ImpastoError(f"{option} varies twice; give all of its values at once")
        found = result[names[option]] = dict.fromkeys(values)
        for text in values:
            if text != "none" and option in parses:
                found[text] = parses[option](text)
            elif text != "none":
                found[text] = meaning(known[names[option]], [text])
    return result


def _option(name: str) -> str:
    return "style-layer" if name == "style_layers" else name.replace("_", "-")
