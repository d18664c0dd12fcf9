"""A form made from the annotations of settings; see `impasto.settings`."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any, get_args

import gradio as gr

from impasto import settings
from impasto.apps.cli.options import meaning
from impasto.settings import STARTS, AnySettings, Parsed, hints, options, words_of

AUTOMATIC = "automatic"
"""The word for None in a list of choices."""

_FEW = 4  # so many choices are shown at once, more in a list
_SHORT = 10.0  # the widest range that has a slider
_NAMES = {"tv": "Smoothness", "evaluations": "Most evaluations", "steps": "Most steps"}


@dataclass(frozen=True)
class Control:
    """A control of the page, and the value that it begins with."""

    name: str
    annotation: Any
    component: Any
    first: Any

    def meant(self, value: Any) -> Any:
        """The value of the setting that the control's stands for."""
        if value in (AUTOMATIC, "") or value is None:
            return None
        if isinstance(value, str) and not words_of(self.annotation) and self.name != "init":
            return meaning(self.annotation, [value])
        return value


class Form:
    """Controls for the settings of a kind, but for those to be left out; built where it is made."""

    def __init__(self, kind: type[AnySettings], without: Collection[str]) -> None:
        told = explained(kind)
        chosen = {n: a for n, a in hints(kind).items() if n not in without}  # type: ignore[arg-type]
        self.controls = [
            _control(name, annotation, getattr(kind, name), told.get(name, ""))
            for name, annotation in chosen.items()
            if len(words_of(annotation)) != 1
        ]

    @property
    def components(self) -> list[Any]:
        """The controls, in order."""
        return [control.component for control in self.controls]

    def changed(self, values: Sequence[Any]) -> dict[str, Any]:
        """The settings whose controls no longer show what they began with."""
        pairs = zip(self.controls, values, strict=True)
        return {
            control.name: control.meant(value)
            for control, value in pairs
            if value != control.first and not (value in (None, "") and control.first in (None, ""))
        }


def explained(kind: type[AnySettings]) -> dict[str, str]:
    """The help text of each setting, with other settings as they are called here."""
    return {
        name: re.sub(r"`(\w+)`", lambda word: titled(word[1]).lower(), text)
        for name, text in settings.explained(kind).items()
    }


def titled(name: str) -> str:
    """What a control is called."""
    return _NAMES.get(name, name.replace("_", " ").capitalize())


def _control(name: str, annotation: Any, default: Any, text: str) -> Control:
    label, info = titled(name), f"{text[:1].upper()}{text[1:]}"
    members = options(annotation)
    component: Any
    words: dict[str, Any] = dict.fromkeys(STARTS) if name == "init" else words_of(annotation)
    if annotation is bool:
        component = gr.Checkbox(default, label=label, info=info)
        return Control(name, annotation, component, default)
    if words:
        choices = [*([AUTOMATIC] if NoneType in members else []), *words]
        first = AUTOMATIC if default is None else default
        told = [f"{word}: {row.help}" for word, row in words.items() if row and row.help]
        info = " ".join([info, *([f"({'; '.join(told)})"] if told else [])])
        kind: Any = gr.Radio if len(choices) <= _FEW else gr.Dropdown
        return Control(name, annotation, kind(choices, value=first, label=label, info=info), first)
    for member in members:
        base = getattr(member, "__origin__", member)
        # Gradio shows an empty field for numbers as 0, so that one which may be empty is for text.
        if base in (int, float) and default is not None:
            component = _number(member, default, label, info)
            return Control(name, annotation, component, default)
    shares = any(
        isinstance(each, Parsed) and each.parse is settings.shares_of
        for member in members
        for each in getattr(member, "__metadata__", ())
    )
    hint = "such as relu3_1, relu4_1:2" if shares else AUTOMATIC
    info = f"{info} {_range(members[0])}".strip()
    component = gr.Textbox(default or "", label=label, info=info, placeholder=hint, max_length=500)
    return Control(name, annotation, component, default or "")


def _number(annotation: Any, default: Any, label: str, info: str) -> Any:
    """A slider where the range is short, and else a field; the settings check the value."""
    least, most = _bounds(annotation)
    if least is not None and most is not None and most - least <= _SHORT:
        return gr.Slider(least, most, default, step=0.01, label=label, info=info)
    is_whole = get_args(annotation)[0] is int
    return gr.Number(
        default,
        label=label,
        info=f"{info} {_range(annotation)}".strip(),
        precision=0 if is_whole else None,
        step=1 if is_whole else 0.1,
    )


def _bounds(annotation: Any) -> tuple[float | None, float | None]:
    extras = getattr(annotation, "__metadata__", ())
    least = next((each.ge for each in extras if getattr(each, "ge", None) is not None), None)
    most = next((each.le for each in extras if getattr(each, "le", None) is not None), None)
    return least, most


def _range(annotation: Any) -> str:
    least, most = _bounds(annotation)
    if most is not None and most < 1e6:  # a range up to billions says nothing
        return f"From {least:g} to {most:g}."
    return "" if least is None else f"At least {least:g}."
