"""Orders: what a job is to make, from which pictures, with which settings. Imports no torch."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Self

from impasto import catalog
from impasto.errors import ImpastoError, nearest
from impasto.pictures import images
from impasto.pictures.samples import sample_names
from impasto.settings import (
    STARTS,
    AnySettings,
    ApplySettings,
    AtlasSettings,
    CompareSettings,
    ImagineSettings,
    ReconstructSettings,
    Settings,
    TextureSettings,
    WorkSettings,
    choose,
    hints,
)

SAMPLE = "sample:"
"""Before the name of a sample picture, it stands where the name of a file does."""

MOST = 16
"""The most pictures of one role, and the most pictures of a comparison."""

_CELLS = {"atlas": 12, "compare": 4}  # pictures on a page, about

_OURS = ("device", "memory", "weights")
"""Settings that are whoever runs the workers' to choose."""

Shares = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Command:
    """A command that jobs can run: its settings, and how many pictures of each role it takes.

    is_long: it paints by optimisation. names: the styles or generators that it knows, if it paints
    with a network; then it needs at least one.
    """

    settings: type[AnySettings]
    photos: tuple[int, int] = (0, 0)
    paintings: tuple[int, int] = (0, 0)
    regions: tuple[int, int] = (0, 0)
    is_long: bool = True
    needs_style: bool = False
    varies: bool = False
    films: bool = False


COMMANDS: Mapping[str, Command] = MappingProxyType(
    {
        "stylize": Command(Settings, (1, 1), (0, MOST), (0, MOST), films=True),
        "reconstruct": Command(ReconstructSettings, (1, MOST), films=True),
        "texture": Command(TextureSettings, (0, 0), (1, 1), films=True),
        "atlas": Command(AtlasSettings, (1, 1), (1, 1)),
        "compare": Command(CompareSettings, (1, 1), (0, MOST), (0, MOST), varies=True),
        "apply": Command(ApplySettings, (1, 1), is_long=False, needs_style=True),
        "imagine": Command(ImagineSettings, is_long=False, needs_style=True),
    }
)
"""What a job can be, by the name of its command."""


@dataclass(frozen=True)
class Order:
    """What a job is to make.

    command: a name of `COMMANDS`. settings: single settings of it, by name. photos: names of files,
    or `sample:NAME`. paintings: the same, each with its share. regions: pairs of a mask and a
    painting. style: styles of a network, or a generator, with their shares. vary: the values of
    one or two settings, for compare. film: whether to film the steps. network: the network of
    apply, by the name that it is served under. label: what the sender calls it, for himself.
    """

    command: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    photos: tuple[str, ...] = ()
    paintings: Shares = ()
    regions: tuple[tuple[str, str], ...] = ()
    style: Shares = ()
    vary: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    film: bool = False
    network: str = "samples"
    label: str = ""

    @property
    def text(self) -> str:
        """The order as JSON, which `read` reads."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def read(cls, text: str) -> Self:
        """The order that a `text` holds."""
        fields = json.loads(text)
        pairs = {name: tuple(map(tuple, fields[name])) for name in _PAIRS}
        return cls(**{**fields, **pairs, "photos": tuple(fields["photos"])})

    @property
    def inputs(self) -> list[str]:
        """All the pictures that it names."""
        regions = [name for pair in self.regions for name in pair]
        return [*self.photos, *(name for name, _ in self.paintings), *regions]


_PAIRS = ("paintings", "regions", "style")


def checked(order: Order, files: Mapping[str, bytes], limits: WorkSettings) -> Order:
    """The order with its settings as plain values, if it can be carried out; see `COMMANDS`.

    files: the bytes of the pictures that it names, by name. Only their headers are read.

    Raises:
        ImpastoError: the text says what is wrong, and how to mend it.
    """
    if order.command not in COMMANDS:
        near = nearest(order.command, COMMANDS)
        raise ImpastoError(
            f"there is no command {order.command!r} for jobs; did you mean {near!r}? "
            f"(there are: {', '.join(COMMANDS)})"
        )
    command = COMMANDS[order.command]
    _check_roles(order, command)
    for name in order.inputs:
        if name.startswith(SAMPLE):
            _check_sample(name.removeprefix(SAMPLE))
        elif name not in files:
            raise ImpastoError(f"there is no picture {name!r}; send it along")
    settings = chosen(order)
    sizes = {name: check_picture(data, name, limits) for name, data in files.items()}
    photos = [sizes[name] for name in order.photos if name in sizes]
    cells = _CELLS.get(order.command, 1)
    _check_result(settings, photos, limits, cells)
    for size in order.vary.get("size", ()):
        varied = choose(CompareSettings, None, {"size": size})
        _check_result(varied, photos, limits, cells)
    return order


def chosen(order: Order) -> AnySettings:
    """The settings of an order.

    Raises:
        ImpastoError: one is unknown, out of its range, or not for those who send orders.
    """
    kind = COMMANDS[order.command].settings
    if not isinstance(order.settings, Mapping):
        raise ImpastoError("settings are no JSON object; give names and values")
    choices = dict(order.settings)
    for name in _OURS:
        if name in choices:
            raise ImpastoError(f"{name} is not a job's to choose; leave it out")
    if "init" in choices and choices["init"] not in STARTS:
        raise ImpastoError(f"init is {choices['init']!r}; give one of: {', '.join(STARTS)}")
    for name, value in choices.items():
        if isinstance(value, list) and name == "size":
            choices[name] = tuple(value)
    _check_encoder(choices.get("encoder"))
    preset = choices.pop("preset", None) if issubclass(kind, Settings) else None
    settings = choose(kind, None, choices, preset)
    _check_variations(order)
    return settings


def arguments(order: Order) -> dict[str, Any]:
    """The settings of an order as keyword arguments of its command in Python."""
    choices = dict(order.settings)
    if isinstance(choices.get("size"), list):
        choices["size"] = tuple(choices["size"])
    return choices


def check_picture(data: bytes, name: str, limits: WorkSettings) -> tuple[int, int]:
    """The (width, height) of a picture that came in.

    Raises:
        ImpastoError: it is no picture, is empty, or has too many pixels.
    """
    size = images.measured(data, name)
    check_pixels(name, size, limits)
    return size


def check_pixels(name: str, size: tuple[int, int], limits: WorkSettings) -> None:
    """Raise an `ImpastoError` if a picture of (width, height) is too large."""
    if math.prod(size) > limits.megapixels * 1e6:
        raise ImpastoError(
            f"{name} has {size[0]} x {size[1]} pixels, and no more than "
            f"{limits.megapixels:g} million are allowed here; make it smaller"
        )


def _check_roles(order: Order, command: Command) -> None:
    counts = {
        "photo": (len(order.photos), command.photos),
        "painting": (len(order.paintings), command.paintings),
        "region": (len(order.regions), command.regions),
        "style": (len(order.style), (1, MOST) if command.needs_style else (0, 0)),
    }
    for role, (count, (least, most)) in counts.items():
        if least <= count <= most:
            continue
        wanted = str(least) if least == most else f"{least} to {most}"
        several = "s" if most != 1 else ""
        takes = f"takes {wanted} {role}{several}" if most else f"takes no {role}"
        raise ImpastoError(f"{order.command} {takes}, and {count} came; send as many as it takes")
    if command.regions[1] and not order.paintings and not order.regions:
        raise ImpastoError(f"{order.command} needs a painting; send one")
    if order.film and not command.films:
        raise ImpastoError(f"{order.command} has no steps to film; leave film out")
    if order.command == "imagine":
        for name, _ in order.style:
            if name not in catalog.GENERATORS:
                near = nearest(name, catalog.GENERATORS)
                raise ImpastoError(
                    f"there is no generator {name!r}; did you mean {near!r}? "
                    f"(there are: {', '.join(catalog.GENERATORS)})"
                )
        if len(order.style) > 1:
            raise ImpastoError("imagine takes one style; send one")
    for name, share in (*order.paintings, *order.style):
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1e9:
            raise ImpastoError(f"the share of {name} is {share!r}; give a number of at least 0")
    shares = order.paintings or order.style
    if shares and not sum(share for _, share in shares):
        raise ImpastoError("no picture has a share above 0; give one")


def _check_sample(name: str) -> None:
    known = [sample for names in sample_names().values() for sample in names]
    if name not in known:
        near = nearest(name, known)
        raise ImpastoError(f"there is no sample {name!r}; did you mean {near!r}?")


def _check_variations(order: Order) -> None:
    command = COMMANDS[order.command]
    if not command.varies:
        if order.vary:
            raise ImpastoError(f"{order.command} varies nothing; leave vary out")
        return
    if not isinstance(order.vary, Mapping) or not order.vary:
        raise ImpastoError('compare needs settings to vary, such as {"strength": [0.3, 0.7]}')
    lists = [values for values in order.vary.values() if isinstance(values, Sequence)]
    if math.prod(map(len, lists)) > MOST or len(order.vary) > 2:
        raise ImpastoError(f"vary one or two settings, with up to {MOST} pictures in all")
    for name, values in order.vary.items():
        known = hints(command.settings)  # type: ignore[arg-type]
        if name not in known or name in _OURS or name == "init":
            raise ImpastoError(f"{name} cannot be varied here; vary another setting")
        if not isinstance(values, Sequence) or isinstance(values, str) or not values:
            raise ImpastoError(f"{name} varies over {values!r}; give a list of values")
        for value in values:
            choose(command.settings, None, {**order.settings, name: value})
            if name == "encoder":
                _check_encoder(value)


def _check_encoder(name: object) -> None:
    row = catalog.ENCODERS.get(str(name))
    if row and row.needs_file:
        raise ImpastoError(
            f"{name} needs a weights file, which is not a job's to choose; choose the encoder "
            "vgg16 or efficientnet-lite0"
        )


def _check_result(
    settings: AnySettings, photos: Sequence[tuple[int, int]], limits: WorkSettings, cells: int
) -> None:
    size = getattr(settings, "size", None)
    if isinstance(size, tuple):
        check_pixels("the result", size, limits)
    elif isinstance(size, int):
        for photo in photos or [(1, 1)]:
            width, height = images.fitted_size(photo, size)
            check_pixels("the result", (cells * width, height), limits)
