"""What a worker does for pictures that are painted in one pass, several at once. No torch."""

from __future__ import annotations

import functools
import os
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from impasto.errors import ImpastoError, told_of
from impasto.jobs.workers import Defect, Tell
from impasto.networks.applied import at_size, file_of, finish_of, record_of
from impasto.networks.files import located
from impasto.networks.network import Asked, Network
from impasto.pictures import images
from impasto.pictures.images import Picture
from impasto.settings import ApplySettings, WorkSettings, choose

MEMORY = "2G"

Painted = tuple[bytes, dict[str, Any]]
"""A picture as the bytes of a file, and facts about it: its `size`, and the `seconds` it took."""


@dataclass(frozen=True)
class Repaint:
    """A picture to repaint: the bytes of a file, and how; `name` is for messages and the record.

    network: its name, or the path of its file. style: shares by name. settings: single ones of
    `ApplySettings`. format: that of the result, such as png.
    """

    data: bytes = field(repr=False)
    network: str
    style: Mapping[str, float]
    settings: Mapping[str, Any]
    format: str = "png"
    name: str = "the photo"


def warm(networks: Sequence[str], limits: WorkSettings, tell: Tell | None = None) -> None:  # noqa: ARG001
    """Load networks, so that the first picture needs not wait for it."""
    for name in networks:
        network, _ = _network(name, limits.device, _memory(limits))
        _ = network.run


def painted(
    asked: Sequence[Repaint],
    limits: WorkSettings,
    tell: Tell | None = None,  # noqa: ARG001
) -> list[Painted | ImpastoError]:
    """Repaint pictures together; in place of one that fails stands the error."""
    results: dict[int, Painted | ImpastoError] = {}
    ready: list[tuple[int, Network, Asked, dict[str, Any]]] = []
    decoded: dict[int, Picture] = {}  # one photo may be asked for in several styles
    for number, each in enumerate(asked):
        try:
            settings = choose(ApplySettings, None, each.settings)
            network, file = _network(each.network, limits.device, _memory(limits))
            style = dict(each.style)
            record = record_of(network, file, style, settings)
            if id(each.data) not in decoded:
                picture = images.read_bytes(each.data, each.name)
                decoded[id(each.data)] = images.read_visible(picture)
            picture = at_size(decoded[id(each.data)], settings.size)
            photo = {"photo": images.named(picture)}
            own = Asked(picture, style, finish_of(settings))
            ready.append((number, network, own, record | photo))
        except Exception as error:
            results[number] = _told(each.name, error)
    began = time.monotonic()
    pictures = _together(ready)
    seconds = (time.monotonic() - began) / max(1, len(ready))
    for (number, *_, record), picture in zip(ready, pictures, strict=True):
        try:
            if isinstance(picture, Exception):
                raise picture
            size = list(picture.size)
            data = images.encoded(picture, asked[number].format, record | {"size": size})
            results[number] = data, {"size": size, "seconds": round(seconds, 3)}
        except Exception as error:
            results[number] = _told(asked[number].name, error)
    return [results[number] for number in range(len(asked))]


def _told(name: str, error: Exception) -> ImpastoError:
    if isinstance(error, ImpastoError):
        return error
    traceback.print_exception(error)
    return Defect(told_of(name, error))


def _together(ready: Sequence[tuple[int, Network, Asked, dict[str, Any]]]) -> list[Any]:
    """The pictures, or the exception in place of one that failed."""
    made: dict[int, Any] = {}
    networks = {id(network): network for _, network, *_ in ready}
    for network in networks.values():
        own = [(number, each) for number, other, each, _ in ready if other is network]
        try:
            pictures: Sequence[Any] = network.each([each for _, each in own])
        except Exception:  # one by one, to find out which it is
            pictures = [_alone(network, each) for _, each in own]
        made |= zip([number for number, _ in own], pictures, strict=True)
    return [made[number] for number, *_ in ready]


def _alone(network: Network, asked: Asked) -> Any:
    try:
        return network.each([asked])[0]
    except Exception as error:
        return error


def _memory(limits: WorkSettings) -> int | str:
    return MEMORY if limits.memory is None else limits.memory


def _network(name: str, device: str, memory: int | str) -> tuple[Network, dict[str, str | None]]:
    path = located(name)
    return _loaded(str(path), _changed(path), device, memory)


@functools.lru_cache(maxsize=8)
def _loaded(
    path: str,
    changed: int,  # noqa: ARG001 # a file that was written anew is loaded anew
    device: str,
    memory: int | str,
) -> tuple[Network, dict[str, str | None]]:
    threads = os.environ.get("OMP_NUM_THREADS", "")  # a worker's own, see `workers`
    number = int(threads) if threads.isdigit() else None
    network = Network.load(path, device=device, memory=memory, threads=number)
    return network, file_of(Path(path))


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError as error:
        raise ImpastoError(f"{path} cannot be read ({error.strerror}); put it back") from None
