"""What every recipe works with: the encoder on its device, and as much memory as there is."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from impasto import __version__
from impasto import device as machine
from impasto.device import choose_device
from impasto.encoders.tiles import needed, plan, weights
from impasto.encoders.vgg import IMAGE, Padding, load_encoder
from impasto.errors import ImpastoError, notice
from impasto.kernels import ops as compiled
from impasto.losses.base import Loss
from impasto.losses.objective import Objective, measure
from impasto.losses.styles import STYLES, BatchNorm, GaussianMmd, Statistic, Style
from impasto.optimise.base import HISTORY, OPTIMISERS, Optimiser, lbfgs
from impasto.pictures import images
from impasto.pictures.images import Picture
from impasto.settings import FULL, RunSettings, StyleName, amount, parse_memory

LEAST_HISTORY = 2
"""Pairs of past steps that L-BFGS remembers even where memory is scarce."""

LIBRARIES = {"lbfgs": 430 * 2**20, "cg": 455 * 2**20, "adam": 475 * 2**20}
"""Bytes that the interpreter takes with all libraries of a run, by the optimiser, and what the
allocator loses between pieces: 360 MB and 80 measured on Linux.

All need some of SciPy, conjugate gradient more, and torch's Adam a good deal of torch.
"""

CUDA_LIBRARIES = 150 * 2**20 if torch.version.cuda else 0
"""And with those of CUDA, which a build of torch for it loads whatever is computed on."""

OPTIMISER_VECTORS = {"lbfgs": 11, "cg": 28, "adam": 6}
"""Vectors as large as the image that an optimiser needs beside its history."""

_PIXEL = 4  # bytes, in a PIL image of mode RGB
_READING = 34  # bytes a pixel, from a PIL image to an image tensor

LEAST_AREA = 1e-6
"""What covers less of a layer than this is not seen there."""


class Exemplar(NamedTuple):
    """A painting to take a style from.

    image: an image tensor. share: of the style that is mixed of several; shares sum up to 1.
    visible: how much each pixel [1, 1, height, width] counts; none: all of them alike.
    """

    image: Tensor
    share: float = 1.0
    visible: Tensor | None = None


Paintings = Sequence[Exemplar]


class Studio:
    """Encoder, device and memory for one recipe.

    layers: those that its losses read, beside the image itself.
    history: how many pairs of past steps L-BFGS remembers, where there is memory for them.
    targets: layers whose activations are kept whole, as what is to be reached.
    pictures: how many pixels the pictures have that went in; they are kept as they are, too.
    shown: how many bytes a pixel it takes to show a step, where that is more than its image.

    Raises:
        ImpastoError: a layer, device or weights file does not exist.
    """

    def __init__(
        self,
        settings: RunSettings,
        layers: Iterable[str],
        padding: Padding = "zeros",
        history: int = HISTORY,
        targets: Iterable[str] = (),
    ) -> None:
        self.settings = settings
        self.history = history
        self.pictures = self.shown = 0
        self.device = choose_device(settings.device)
        encoder = load_encoder(settings.weights, settings.pooling, padding)
        self.encoder = encoder.to(self.device)
        self.settled = False
        self.layers = [IMAGE, *(self.encoder.layer(name) for name in layers)]
        self.targets = [self.encoder.layer(name) for name in targets]
        self.weights_file = _hashed(settings.weights)

    def tensor(self, image: Image.Image) -> Tensor:
        """A picture as an image tensor on the device."""
        return images.to_tensor(image).to(self.device)

    def noise(self, shape: Sequence[int]) -> Tensor:
        """Uniform noise from the seed."""
        generator = torch.Generator("cpu").manual_seed(self.settings.seed)
        noise = torch.rand(tuple(shape), generator=generator, dtype=torch.float32, device="cpu")
        return noise.to(self.device)

    def measure(
        self,
        image: Tensor,
        features: Iterable[str] = (),
        statistics: Mapping[str, Statistic] | None = None,
    ) -> dict[str, Tensor]:
        """Targets, see `objective.measure`; of pictures that do not repeat, whatever is made."""
        self._settle()
        return measure(
            self.encoder.padded("zeros"),
            image,
            features=features,
            statistics=statistics or {},
            memory=self._memory - self._fixed,  # nothing is optimised yet
        )

    @functools.cached_property
    def floors(self) -> dict[str, float]:
        """For each layer, the `floor` of a `ContentLoss`: half of what a black picture has there.

        Every photo with something in it is above it, and the pictures that are not (flat ones near
        the colour that the network takes for the mean, and what is left of a photo whose contrast
        is next to none) get as much paint as a fog.
        """
        black = torch.zeros(1, 3, 64, 64, dtype=torch.float32, device=self.device)
        found = self.measure(black, self.layers[1:])
        return {layer: 0.5 * float(f.square().mean()) for layer, f in found.items()}

    def styles(
        self, name: StyleName, layers: Iterable[str], paintings: Paintings
    ) -> dict[str, Style]:
        """The style called `name` for each layer, fitted to these paintings where it has to be."""
        if name != "mmd-gaussian":
            return dict.fromkeys(layers, STYLES[name])
        moments = self.mixed(paintings, {layer: Statistic(layer, BatchNorm()) for layer in layers})
        return {
            layer: GaussianMmd(GaussianMmd.bandwidth(found), self.settings.seed)
            for layer, found in moments.items()
        }

    def mixed(self, paintings: Paintings, statistics: Mapping[str, Statistic]) -> dict[str, Tensor]:
        """Statistics of paintings, mixed: those of one that has each one's share of positions."""
        total: dict[str, Tensor] = {}
        for image, share, visible in paintings:
            seen = {n: self._where(s, visible) for n, s in statistics.items()}
            for name, found in self.measure(image, statistics=seen).items():
                total[name] = total[name] + share * found if name in total else share * found
        return total

    def area(self, layer: str, mask: Tensor) -> Tensor | None:
        """A mask [1, 1, height, width] at a layer's positions, of mean 1; none: it covers nothing.

        What a mask says of pixels that pooling drops is lost.
        """
        pooled = F.avg_pool2d(mask, self.encoder.min_size([layer]))
        mean = pooled.mean()
        return pooled / mean if mean >= LEAST_AREA else None

    def _where(self, statistic: Statistic, visible: Tensor | None) -> Statistic:
        """A statistic of what is visible alone."""
        area = None if visible is None else self.area(statistic.layer, visible)
        if area is None:
            return statistic
        if statistic.area is not None:
            area = statistic.area * area
            area = area / area.mean().clamp_min(LEAST_AREA)
        return dataclasses.replace(statistic, area=area)

    def visible(self, picture: Picture, size: tuple[int, int]) -> Tensor | None:
        """How much is there of each pixel of a picture at (width, height); none: all of it."""
        if picture.alpha is None:
            return None
        return self.tensor(images.resize(picture.alpha, size))[:, :1]

    def objective(self, losses: Sequence[Loss], image: Tensor) -> Objective:
        """An objective for an image of this size, within the memory there is."""
        _, memory = self._shares_of_memory(*_size(image))
        return Objective(self.encoder, losses, memory=memory)

    def optimiser(self, image: Tensor) -> Optimiser:
        """The optimiser chosen, for an image of this size."""
        if self.settings.optimizer != "lbfgs":
            return OPTIMISERS[self.settings.optimizer]
        pairs, _ = self._shares_of_memory(*_size(image))
        return functools.partial(lbfgs, history=pairs)

    def result_size(self, picture: Picture, longer: int | str) -> tuple[int, int]:
        """The (width, height) of what is made of a picture; tells where that enlarges it."""
        own = picture.image.size
        size = own if longer == FULL else images.fitted_size(own, int(longer))
        self.check_size(picture.name, size, self.layers)
        if max(size) > max(own):
            notice(
                f"{picture.name} has only {own[0]} x {own[1]} pixels "
                f"and is enlarged to {size[0]} x {size[1]}"
            )
        return size

    def check_size(self, name: str, size: tuple[int, int], layers: Iterable[str]) -> None:
        """Raise an `ImpastoError` where a picture of (width, height) is too small for a layer."""
        smallest = self.encoder.min_size(layers)
        if min(size) < smallest:
            deepest = max(layers, key=self.encoder.layers.index)
            raise ImpastoError(
                f"{name} would be {size[0]} x {size[1]} pixels, but {deepest} needs at least "
                f"{smallest} x {smallest}; use a larger size, or layers before it"
            )

    def tell_of_memory(
        self,
        size: tuple[int, int],
        channels: int = 3,
        paintings: Iterable[tuple[str, tuple[int, int]]] = (),
        margin: int = 0,
    ) -> None:
        """Say so where not even the smallest tiles keep within the bound.

        paintings: names and sizes, as they are measured, of those that a picture of (width,
        height) is painted after. margin: how many pixels are painted around it.

        Raises:
            ImpastoError: it is more than there is, so that the system would end the process.
        """
        what = f"{size[0]} x {size[1]} pixels"
        size = size[0] + 2 * margin, size[1] + 2 * margin
        with machine.fitting(f"a picture of {what}"):
            _, left = self._shares_of_memory(size, channels)
        whole = self.encoder.padding == "circular"
        how = "as a whole, as a picture that repeats is" if whole else "even in small tiles"
        needs = self._memory - left + self._least(size) + self._kept(size)
        self._tell(what, needs, how, "a smaller size takes less")
        for name, own in paintings:
            pixels = own[0] * own[1]
            needs = self._fixed + _READING * pixels + self._least(own, measuring=True)
            what = f"{name} at {own[0]} x {own[1]} pixels"
            self._tell(what, needs, "to look at", "a smaller style scale takes less")

    def _tell(self, what: str, needs: float, how: str, advice: str) -> None:
        is_there = self._fixed + weights(self.encoder, self.layers)
        free = machine.free(self.device)
        if needs - is_there > free:
            raise ImpastoError(
                f"{what} take about {amount(needs)} {how}, and {amount(free + is_there)} are all "
                f"that there is; {advice}"
            )
        if needs > self._memory:
            notice(
                f"{what} take about {amount(needs)} {how}, more than the {amount(self._memory)} "
                f"allowed; {advice}"
            )

    def record(self, command: str, size: tuple[int, int], **settings: Any) -> dict[str, Any]:
        """What made a picture, without what differs between two runs that made the same."""
        record: dict[str, Any] = {
            "impasto": __version__,
            "torch": torch.__version__,
            "device": str(self.device),
            "threads": torch.get_num_threads(),
            "command": command,
            "size": list(size),
            "settings": dataclasses.asdict(self.settings) | settings,
        }
        if self.weights_file:
            record["settings"]["weights"] = self.weights_file["name"]
            record["weights"] = self.weights_file
        return record

    def _shares_of_memory(self, size: tuple[int, int], channels: int) -> tuple[int, float]:
        """For an image of (width, height): how many pairs of steps the optimiser may remember, and
        how many bytes are left to the objective.
        """
        self._settle()
        vector = 4 * channels * size[0] * size[1]
        left = self._memory - self._fixed - OPTIMISER_VECTORS[self.settings.optimizer] * vector
        left -= self.shown * size[0] * size[1]
        if self.settings.optimizer != "lbfgs":
            return 0, left
        # Half of what the smallest tiles leave: the rest makes them larger.
        spare = left - self._least(size) - self._kept(size) - 2 * LEAST_HISTORY * vector
        pairs = LEAST_HISTORY + max(0, int(spare / 2 / (2 * vector)))
        pairs = min(self.history, pairs)
        return pairs, left - 2 * pairs * vector

    def _least(self, size: tuple[int, int], *, measuring: bool = False) -> float:
        """How many bytes the most frugal way of evaluating takes, weights and all."""
        upright = size[1], size[0]
        whole = self.encoder.padding == "circular" and not measuring
        segments = None if whole else plan(self.encoder, self.layers, upright, memory=0)
        return needed(self.encoder, self.layers, upright, segments)

    def _kept(self, size: tuple[int, int]) -> int:
        """How many bytes the targets take that are kept whole."""
        total = 0
        for name in self.targets:
            side = self.encoder.min_size([name])
            total += 4 * self.encoder.channels(name) * (size[0] // side) * (size[1] // side)
        return total

    @property
    def _fixed(self) -> int:
        """Bytes that are gone before anything is painted; what is free does without the first."""
        if self.settings.memory is None:
            libraries = 0
        else:
            libraries = LIBRARIES[self.settings.optimizer] + CUDA_LIBRARIES
        return libraries + _PIXEL * self.pictures

    def _settle(self) -> None:
        """Prepare the kernels, once, so that what they take is there when the rest is counted."""
        if not self.settled and self.device.type == "cpu" and compiled.status().ready:
            self.encoder.settle(self.layers)
            machine.give_back()
        self.settled = True

    @functools.cached_property
    def _memory(self) -> int:
        """How many bytes painting may take; what is free is asked once, before it begins."""
        bound = self.settings.memory
        if bound is not None:
            return parse_memory(bound)
        return int(machine.SHARE * machine.free(self.device))


def _size(image: Tensor) -> tuple[tuple[int, int], int]:
    """(width, height) and channels of an image tensor."""
    _, channels, height, width = image.shape
    return (width, height), channels


def named(picture: Picture) -> dict[str, str]:
    """How a record names an input."""
    return {"name": Path(picture.name).name, "sha256": picture.sha256}


def canonical(shares: Mapping[str, float], layer: Any) -> dict[str, float]:
    """Shares by canonical layer names; `layer` gives these."""
    total: dict[str, float] = {}
    for name, share in shares.items():
        total[layer(name)] = total.get(layer(name), 0.0) + share
    return total


def _hashed(weights_file: str | os.PathLike[str] | None) -> dict[str, str] | None:
    if weights_file is None:
        return None
    path = Path(weights_file)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"name": path.name, "sha256": digest}
