"""Network files: safetensors with a description in JSON. Imports no torch."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from impasto import __version__, catalog
from impasto.errors import ImpastoError, nearest
from impasto.networks.architecture import Architecture
from impasto.networks.pyramid import Pyramid
from impasto.pictures import files, images

FORMAT = 1
"""The version of the format; a file of another version is refused."""

SUFFIX = ".safetensors"

THUMBNAIL = 128
"""The longer side of the thumbnail of a painting, in pixels."""

_BUNDLED = {**{name: name for name in catalog.NETWORKS}, **catalog.GENERATORS}
_KEY = "impasto"  # of the description in the file's header
_FOLDER = Path(__file__).parent / "weights"

_NUMBERS = "F32", "F16"  # halves are made by `halved`, and read as floats
_TRANSFORMER, _GENERATOR = "transformer", "generator"
_SHAPES: Mapping[str, type[Architecture | Pyramid]] = {
    _TRANSFORMER: Architecture,
    _GENERATOR: Pyramid,
}

Weights = Mapping[str, npt.NDArray[Any]]
Styles = str | Mapping[str, float] | Sequence[tuple[str, float]] | None
"""A style's name; several, each with its share; or None for the only style of a network."""


@dataclass(frozen=True)
class Style:
    """A style of a network.

    name: to choose it by. sha256: of the painting's file. thumbnail: the painting as a small JPEG,
    in base64. settings: those of the training. training: its record: steps, seconds, photos, the
    losses reached, the machine.
    """

    name: str
    sha256: str
    thumbnail: str = ""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def picture(self) -> Image.Image:
        """The painting, small.

        Raises:
            ImpastoError: it is damaged.
        """
        try:
            image = Image.open(io.BytesIO(base64.b64decode(self.thumbnail)))
            image.load()
        except (ValueError, OSError):
            raise ImpastoError(f"the thumbnail of {self.name} is damaged") from None
        return image


@dataclass(frozen=True)
class NetworkFile:
    """All that a network file holds.

    architecture: of a network that repaints photos, or the `Pyramid` of one that makes pictures
    from noise. weights: arrays by the names of its `tensors`. licence: the text under which the
    weights may be used. impasto: the version that trained it, or added the last style.
    """

    architecture: Architecture | Pyramid
    styles: tuple[Style, ...]
    weights: Weights
    licence: str = ""
    impasto: str = __version__

    @property
    def description(self) -> dict[str, Any]:
        """Everything but the weights, as values that JSON can hold."""
        about = dataclasses.asdict(dataclasses.replace(self, weights={}))
        del about["weights"]
        kind = _GENERATOR if isinstance(self.architecture, Pyramid) else _TRANSFORMER
        return {"format": FORMAT, "kind": kind, **about}

    @property
    def transformer(self) -> Architecture:
        """The architecture of a network that repaints photos.

        Raises:
            ImpastoError: it makes pictures from noise.
        """
        if isinstance(self.architecture, Pyramid):
            raise ImpastoError(
                "this network makes pictures from noise and cannot repaint any; use it with "
                "impasto imagine, or Generator in Python"
            )
        return self.architecture

    @property
    def pyramid(self) -> Pyramid:
        """The shape of a network that makes pictures from noise.

        Raises:
            ImpastoError: it repaints photos.
        """
        if isinstance(self.architecture, Architecture):
            raise ImpastoError(
                "this network repaints photos and makes no pictures from noise; use it with "
                "impasto apply, or Network in Python"
            )
        return self.architecture

    def shares(self, style: Styles) -> npt.NDArray[np.float32]:
        """The share of each style, float32 [styles], which sum up to 1.

        Raises:
            ImpastoError: there is no such style, or no share is above 0.
        """
        names = [each.name for each in self.styles]
        if style is None:
            if len(names) > 1:
                raise ImpastoError(
                    f"the network has several styles; name one of: {', '.join(names)}"
                )
            style = names[0]
        pairs: Any = [(style, 1.0)] if isinstance(style, str) else style
        pairs = pairs.items() if isinstance(pairs, Mapping) else pairs
        found = np.zeros(len(names), np.float64)
        try:
            for name, share in pairs:
                if not 0 <= float(share) < np.inf:
                    raise ImpastoError(
                        f"the share of {name} is {share}; give a number of at least 0"
                    )
                found[self.index(str(name))] += float(share)
        except ImpastoError:
            raise
        except (TypeError, ValueError):
            raise ImpastoError(
                f"{style!r} is no style; give a name, or names with shares, as in "
                f"{{{names[0]!r}: 1}}"
            ) from None
        if not found.sum():
            raise ImpastoError("no style has a share above 0; give one")
        return np.asarray(found / found.sum(), np.float32)

    def index(self, name: str) -> int:
        """The row of the style called `name`.

        Raises:
            ImpastoError: there is no such style.
        """
        names = [style.name for style in self.styles]
        if name not in names:
            raise ImpastoError(
                f"there is no style {name!r} in this network; did you mean "
                f"{nearest(name, names)!r}? (there are: {', '.join(names)})"
            )
        return names.index(name)


def thumbnail(painting: Image.Image) -> str:
    """A painting as a small JPEG, in base64."""
    small, buffer = painting.convert("RGB"), io.BytesIO()
    small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    small.save(buffer, "JPEG", quality=80)
    return base64.b64encode(buffer.getvalue()).decode()


def located(name: str | os.PathLike[str]) -> Path:
    """The file of a network: a bundled one by its name, or any by its path.

    Raises:
        ImpastoError: there is neither.
    """
    try:
        path = Path(name)
    except TypeError:
        kind = type(name).__name__
        raise ImpastoError(f"a network is named or has a file; {kind} is neither") from None
    if files.is_file(path):
        return path
    if os.fspath(name) in _BUNDLED:
        return _FOLDER / f"{_BUNDLED[os.fspath(name)]}{SUFFIX}"
    raise ImpastoError(
        f"there is no network {os.fspath(name)!r}; give the path of a {SUFFIX} file, or one of: "
        f"{', '.join(_BUNDLED)}"
    )


def read(name: str | os.PathLike[str]) -> NetworkFile:
    """Read a network file, which can hold no code; see `located`.

    Raises:
        ImpastoError: it is missing, damaged, no network, of another format, or its weights do not
            have the shapes that its description says.
    """
    path = located(name)
    try:
        with safe_open(str(path), framework="np") as file:
            described = (file.metadata() or {}).get(_KEY)
            if described is None:
                raise ImpastoError(
                    f"{path} is no network of impasto; give one that impasto train made"
                )
            network = _described(path, described)
            _check_shapes(path, network, file)
            weights = {
                each: file.get_tensor(each).astype(np.float32)
                for each in file.keys()  # noqa: SIM118
            }
    except (SafetensorError, OSError) as error:
        raise ImpastoError(
            f"{path} is no network, or it is damaged or cut short ({error}); get a whole copy of "
            "it, or train one with impasto train"
        ) from None
    if not all(np.isfinite(each).all() for each in weights.values()):
        raise ImpastoError(f"{path} has weights that are no numbers; get a whole copy of it")
    return dataclasses.replace(network, weights=weights)


def _described(path: Path, text: str) -> NetworkFile:
    """What a file says of itself, without weights."""
    damaged = f"{path} has a damaged description"
    try:
        about = json.loads(text)
        version = about.pop("format")
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise ImpastoError(f"{damaged}; get a whole copy of it") from None
    if version != FORMAT:
        raise ImpastoError(
            f"{path} has format {version!r}, and this impasto reads format {FORMAT}; use the "
            "impasto that wrote it, or train it anew"
        )
    kind = about.pop("kind", _TRANSFORMER)
    if not isinstance(kind, str) or kind not in _SHAPES:
        raise ImpastoError(f"{path} is a network of kind {kind!r}; use the impasto that wrote it")
    try:
        architecture = _SHAPES[kind].of(about.pop("architecture"))
        styles = tuple(Style(**style) for style in about.pop("styles"))
        network = NetworkFile(architecture, styles, {}, **about)
    except (ValueError, TypeError, KeyError) as error:
        raise ImpastoError(f"{damaged} ({error}); get a whole copy of it") from None
    fields = [(each, name) for each in styles for name in ("name", "sha256", "thumbnail")]
    texts = [getattr(each, name) for each, name in (*fields, (network, "licence"))]
    mappings = [given for each in styles for given in (each.settings, each.training)]
    names = [style.name for style in styles]
    right = all(isinstance(each, str) for each in texts) and styles
    if not right or not all(isinstance(each, dict) for each in mappings):
        raise ImpastoError(f"{damaged}: fields have other types; get a whole copy of it")
    if not all(n.isprintable() and Path(n).name == n and n not in ("", "..") for n in names):
        raise ImpastoError(f"{damaged}: a style has no name for a file; get a whole copy of it")
    if len({*names}) < len(names):
        raise ImpastoError(f"{damaged}: two styles have one name; get a whole copy of it")
    return network


def _check_shapes(path: Path, network: NetworkFile, file: Any) -> None:
    """Check, before any weights are read, that they are those that the description asks for."""
    wanted = network.architecture.tensors(len(network.styles))
    slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
    found = {
        name: tuple(each.get_shape())
        for name, each in slices.items()
        if each.get_dtype() in _NUMBERS
    }
    wrong = sorted(each for each in wanted.keys() | slices if wanted.get(each) != found.get(each))
    if wrong:
        raise ImpastoError(
            f"{path} does not hold the weights that it describes ({', '.join(wrong[:3])}); "
            "get a whole copy of it"
        )


def write(network: NetworkFile, path: Path, *, force: bool = False) -> Path:
    """Write a network file whole or not at all; returns the path that it got.

    Raises:
        ImpastoError: it cannot be written.
    """
    arrays = {name: np.ascontiguousarray(each) for name, each in network.weights.items()}
    data = save(arrays, {_KEY: json.dumps(network.description)})
    return files.write_whole(data, path, force)


def halved(network: NetworkFile) -> NetworkFile:
    """A network whose file is half as large: its weights have half precision.

    Raises:
        ImpastoError: a weight is too large for that.
    """
    with np.errstate(over="ignore"):
        weights = {name: each.astype(np.float16) for name, each in network.weights.items()}
    if not all(np.isfinite(each).all() for each in weights.values()):
        raise ImpastoError("the network has weights that are too large for half precision")
    return dataclasses.replace(network, weights=weights)


def named(paintings: Iterable[str], base: NetworkFile | None = None) -> list[str]:
    """A style's name for each painting: its file's stem; style 1, style 2, ... if there is no file.

    Raises:
        ImpastoError: two are the same, or `base` has a style of this name.
    """
    count = len(base.styles) if base else 0
    names = [
        f"style {count + number}" if each == images.UNNAMED else Path(each).stem
        for number, each in enumerate(paintings, 1)
    ]
    taken = [*(style.name for style in base.styles), *names] if base else names
    for name in names:
        if taken.count(name) > 1:
            raise ImpastoError(f"two styles would be called {name}; rename one of the paintings")
    return names
