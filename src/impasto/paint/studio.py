"""What every kind of picture is painted with: encoder, optimiser, device and a memory budget."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from impasto import __version__, catalog, device as machine
from impasto.encoders.base import IMAGE, Padding, load_encoder
from impasto.encoders.shifts import Shifted
from impasto.encoders.tiles import needed, plan
from impasto.errors import ImpastoError, fitting, notice
from impasto.kernels import ops
from impasto.losses import neighbors
from impasto.losses.base import Loss
from impasto.losses.objective import Objective, measure
from impasto.losses.styles import LEAST_AREA, Exemplar, Statistic
from impasto.optimise.base import Optimiser
from impasto.pictures import images
from impasto.pictures.files import sha256_of
from impasto.pictures.images import Picture
from impasto.settings import FULL, RunSettings, amount, parse_memory

LEAST_HISTORY = 2
"""The pairs of past steps that L-BFGS remembers even if memory is scarce."""

CUDA_LIBRARIES = 150 * 2**20 if torch.version.cuda else 0
"""Bytes of CUDA's libraries, which a CUDA build of torch loads even if a CPU computes."""

CONTRAST = 0.15
"""Standard deviation of the noise that a picture starts from."""

REMEMBERED = 2**28
"""Bytes of paintings' activations that are kept during a search, at most."""

_PIXEL = 4  # bytes, in a PIL image of mode RGB
_EXEMPLAR = 16  # bytes a pixel, of an image tensor and how visible its pixels are
_READING = 34  # bytes a pixel, from a PIL image to an image tensor


class Studio:
    """Encoder, device and memory for one kind of picture.

    layers: those that the losses read, the image itself first.
    targets: the layers whose activations as a whole are a target of a loss.

    Raises:
        ImpastoError: a layer, device or weights file does not exist.
    """

    def __init__(self, settings: RunSettings, padding: Padding = "zeros") -> None:
        self.settings = settings
        self.device = machine.choose_device(settings.device)
        encoder = load_encoder(settings.weights, settings.pooling, padding, settings.encoder)
        if (shifts := settings.shifts or encoder.shifts) > 1:
            encoder = Shifted(encoder, shifts)
        self.encoder = encoder.like(smoothing=settings.smoothing).to(self.device)
        self.layers = [IMAGE]
        self.targets: list[str] = []
        self.weights_sha256 = None if settings.weights is None else sha256_of(settings.weights)
        self.optimiser: Any = catalog.OPTIMIZERS[settings.optimizer].made(settings)
        self._pictures = self._shown = 0  # bytes, bytes a pixel; see `make_room`
        self._kept_a_pixel = self._searching_a_pixel = self._searching = 0.0  # see `match`
        self._border = 0  # around paintings, in a search
        self.remembers = False  # the paintings' activations in all turns
        self._limited = False

    def read(self, layers: Iterable[str], targets: Iterable[str] = ()) -> None:
        """Set `layers` and `targets`; `layers` get the image and the targets as well."""
        self.targets = [self.encoder.layer(name) for name in targets]
        self.layers = [IMAGE, *self.targets, *(self.encoder.layer(name) for name in layers)]

    def match(self, layers: Iterable[str]) -> None:
        """Neighbours are found by these layers: count what it takes, see `losses.neighbors`."""
        rows = [self.encoder.rows[name] for name in layers]
        self._kept_a_pixel = neighbors.kept_bytes_a_pixel(rows)
        self._searching_a_pixel = neighbors.searching_bytes_a_pixel(rows)
        self._border = neighbors.border_of(rows)

    def tensor(self, image: Image.Image) -> Tensor:
        """A picture as an image tensor on the device."""
        return images.to_tensor(image).to(self.device)

    def noise(self, shape: Sequence[int]) -> Tensor:
        """Uniform noise in 0..1, drawn from the seed."""
        generator = torch.Generator("cpu").manual_seed(self.settings.seed)
        noise = torch.rand(tuple(shape), generator=generator, dtype=torch.float32, device="cpu")
        return noise.to(self.device)

    def measure(
        self,
        image: Tensor,
        features: Iterable[str] | Mapping[str, int] = (),
        statistics: Mapping[str, Statistic] | None = None,
    ) -> dict[str, Tensor]:
        """Targets, see `objective.measure`; with zero padding, as no measured picture repeats."""
        return measure(
            self.encoder.like(padding="zeros"),
            image,
            features=features,
            statistics=statistics or {},
            memory=self._memory - self._fixed - self._searching,  # nothing is optimised yet
        )

    def mixed(
        self,
        paintings: Iterable[Exemplar],
        statistics: Mapping[str, Statistic],
        features: Iterable[str] = (),
    ) -> dict[str, Tensor]:
        """The targets of several pictures, averaged by the pictures' shares; see `Measure`."""
        total: dict[str, Tensor] = {}
        features = tuple(features)
        for image, share, visible in paintings:
            if features and visible is not None:
                raise ImpastoError(
                    "the style loss takes whole pictures only; give paintings without "
                    "transparent parts, or choose another"
                )
            seen = {n: self._where(s, visible) for n, s in statistics.items()}
            for name, found in self.measure(image, features, seen).items():
                found.mul_(share)  # in place: features can be large
                total[name] = total[name].add_(found) if name in total else found
        return total

    def exemplar(self, picture: Picture, size: tuple[int, int], share: float = 1.0) -> Exemplar:
        """A painting, resized to (width, height)."""
        image = self.tensor(images.resize(picture.colours, size))
        return Exemplar(image, share, self.visible(picture, size))

    def area(self, layer: str, mask: Tensor) -> Tensor | None:
        """A mask [1, 1, height, width] at a layer's positions, scaled to mean 1; None if empty."""
        pooled = self.encoder.rows[self.encoder.layer(layer)].averaged(mask)
        mean = pooled.mean()
        return pooled / mean if mean >= LEAST_AREA else None

    def _where(self, statistic: Statistic, visible: Tensor | None) -> Statistic:
        """The same statistic, of the visible part only."""
        area = None if visible is None else self.area(statistic.layer, visible)
        if area is not None and statistic.area is not None:
            area = statistic.area * area
            area = area / area.mean().clamp_min(LEAST_AREA)
        return statistic if area is None else dataclasses.replace(statistic, area=area)

    def visible(self, picture: Picture, size: tuple[int, int]) -> Tensor | None:
        """How visible each pixel of a picture is, resized to (width, height) (None: all fully)."""
        if picture.alpha is None:
            return None
        return self.tensor(images.resize(picture.alpha, size))[:, :1]

    def objective(self, losses: Sequence[Loss], image: Tensor) -> tuple[Objective, Optimiser]:
        """An objective and an optimiser that fit the memory for an image of this size."""
        _, channels, height, width = image.shape
        optimiser, memory = self._shares_of_memory((width, height), channels)
        objective = Objective(self.encoder, losses, memory=memory)
        in_tiles = objective.segments((height, width)) is not None
        self._limited |= in_tiles or optimiser != self.optimiser
        return objective, optimiser

    def limits(self) -> dict[str, Any]:
        """The memory bound, as part of the record, if it changed how the picture was painted."""
        return {"memory": int(self._memory)} if self._limited else {}

    def result_size(self, picture: Picture, longer: int | str) -> tuple[int, int]:
        """The (width, height) of the result; a notice says if that enlarges the picture."""
        own = picture.image.size
        size = own if longer == FULL else images.fitted_size(own, int(longer))
        self.check_size(picture.name, size, self.layers)
        images.tell_if_enlarged(picture, size, "to")
        return size

    def check_size(self, name: str, size: tuple[int, int], layers: Iterable[str]) -> None:
        """Raise an `ImpastoError` if a picture of (width, height) is too small for the layers."""
        smallest = self.encoder.min_size(layers)
        if self._searching_a_pixel:
            smallest = max(smallest, neighbors.SPACING)
        if min(size) < smallest:
            raise ImpastoError(
                f"{name} would be {size[0]} x {size[1]} pixels, but "
                f"{self.encoder.deepest(layers).name} needs at least {smallest} x {smallest}; "
                "use a larger size, or layers before it"
            )

    def make_room(
        self,
        size: tuple[int, int],
        inputs: Iterable[Picture],
        *,
        channels: int = 3,
        paintings: Iterable[tuple[str, tuple[int, int]]] = (),
        margin: int = 0,
        shown: int = 0,
    ) -> None:
        """Count the memory for a picture; a notice says if even the smallest tiles exceed it.

        size: (width, height). inputs: the pictures that were read, which stay in memory. paintings:
        their names and the sizes at which they are measured. margin: pixels painted around the
        picture. shown: bytes a pixel that it takes to show a step, beside the step's image.

        Raises:
            ImpastoError: the machine has less than that, so the system would end the process.
        """
        self._pictures = _PIXEL * sum(math.prod(picture.image.size) for picture in inputs)
        self._shown = shown
        what = f"{size[0]} x {size[1]} pixels"
        size = size[0] + 2 * margin, size[1] + 2 * margin
        with fitting(f"a picture of {what}"):
            _, left = self._shares_of_memory(size, channels)
        needs = self._memory - left + self._least(size) + self._kept(size)
        self._tell(what, needs, "even in small tiles", "a smaller size takes less")
        paintings = [(what, size), *paintings]
        for name, own in paintings[1:]:
            needs = self._fixed + _READING * own[0] * own[1] + self._least(own, measuring=True)
            told = f"{name} at {own[0]} x {own[1]} pixels"
            self._tell(told, needs, "to look at", "a smaller style scale takes less")
        if self._searching_a_pixel:
            self._make_room_to_search(paintings)

    def _make_room_to_search(self, pictures: Sequence[tuple[str, tuple[int, int]]]) -> None:
        """The same for a search; pictures: names and sizes, that of the picture first."""
        more = 2 * self._border
        pictures = [pictures[0], *((what, (w + more, h + more)) for what, (w, h) in pictures[1:])]
        name, largest = max(pictures, key=lambda each: math.prod(each[1]))
        pixels = sum(math.prod(own) for _, own in pictures[1:])
        # All paintings are held, and the targets of layers that have theirs already.
        self._searching = self._searching_a_pixel * math.prod(largest)
        self._searching += _EXEMPLAR * pixels + self._kept(pictures[0][1])
        needs = self._fixed + self._searching + self._least(largest, measuring=True)
        advice = "a smaller size takes less, and another style loss does"
        self._tell(f"the neighbors of {name}", needs, "to find", advice)
        turned = 2 * neighbors.TURNS * self._kept_a_pixel * pixels
        self.remembers = turned <= min(REMEMBERED, self._memory - needs)
        self._searching += turned if self.remembers else 0

    def _tell(self, what: str, needs: float, how: str, advice: str) -> None:
        told = f"{what} take about {amount(needs)} {how}"
        there = machine.free(self.device) + self._fixed + self.encoder.held(self.layers)
        if needs > there:
            raise ImpastoError(f"{told}, and {amount(there)} are all that there is; {advice}")
        if needs > self._memory:
            notice(f"{told}, more than the {amount(self._memory)} allowed; {advice}")

    def record(
        self,
        command: str,
        size: tuple[int, int],
        inputs: Mapping[str, Picture] = MappingProxyType({}),
        **settings: Any,
    ) -> dict[str, Any]:
        """How a picture was made, without what differs between two runs that make the same one.

        inputs: the pictures that were read, by role. settings: replace those chosen.
        """
        record: dict[str, Any] = {
            "impasto": __version__,
            "torch": torch.__version__,
            "device": str(self.device),
            "threads": torch.get_num_threads(),
            "command": command,
            "size": list(size),
            "settings": dataclasses.asdict(self.settings) | self.encoder.choices | settings,
        }
        if self.settings.weights is not None:
            name = Path(self.settings.weights).name
            record["settings"]["weights"] = name
            record["weights"] = {"name": name, "sha256": self.weights_sha256}
        return record | {role: images.named(picture) for role, picture in inputs.items()}

    def _shares_of_memory(self, size: tuple[int, int], channels: int) -> tuple[Optimiser, float]:
        """The optimiser, with a history that it has room for, and the bytes for the objective."""
        pixels = size[0] * size[1]
        vector = 4 * channels * pixels
        left = self._memory - self._fixed - self.optimiser.vectors * vector - self._shown * pixels
        if not hasattr(self.optimiser, "history"):
            return self.optimiser, left
        # Half of what the smallest tiles leave; the other half makes tiles larger.
        spare = left - self._least(size) - self._kept(size) - 2 * LEAST_HISTORY * vector
        affordable = LEAST_HISTORY + max(0, int(spare / 2 / (2 * vector)))
        pairs = min(self.settings.history, affordable)
        return dataclasses.replace(self.optimiser, history=pairs), left - 2 * pairs * vector

    def _least(self, size: tuple[int, int], *, measuring: bool = False) -> float:
        """How many bytes an evaluation in the smallest tiles takes, with the weights."""
        upright = size[1], size[0]
        encoder = self.encoder.like(padding="zeros") if measuring else self.encoder
        segments = plan(encoder, self.layers, upright, memory=0)
        return needed(encoder, self.layers, upright, segments)

    def _kept(self, size: tuple[int, int]) -> int:
        """How many bytes the activations in `targets` take."""
        rows, (width, height) = [self.encoder.rows[name] for name in self.targets], size
        targets = sum(4 * r.channels * r.positions(width) * r.positions(height) for r in rows)
        return targets + int(self._kept_a_pixel * width * height)

    @property
    def _fixed(self) -> int:
        """Bytes taken before painting begins; free memory does not include the libraries anyway."""
        libraries = self.optimiser.libraries + CUDA_LIBRARIES
        return (0 if self.settings.memory is None else libraries) + self._pictures

    @functools.cached_property
    def _memory(self) -> int:
        """How many bytes painting may take.

        Free memory is measured once, before painting but after the kernels are prepared.
        """
        if self.device.type == "cpu" and ops.status().ready:
            self.encoder.prepare(self.layers)
            machine.give_back()
        bound, share = self.settings.memory, machine.SHARE
        return int(share * machine.free(self.device)) if bound is None else parse_memory(bound)


def clouds(noise: Tensor) -> Tensor:
    """White noise [1, 3, height, width] turned into noise whose amplitude falls with 1/f.

    It repeats. Pictures have the same spectrum; white noise that no layer sees would stay as grain.
    """
    height, width = noise.shape[-2:]
    rows = torch.fft.fftfreq(height, dtype=torch.float32, device="cpu")
    columns = torch.fft.rfftfreq(width, dtype=torch.float32, device="cpu")
    gains = torch.hypot(rows[:, None], columns).reciprocal()
    gains[0, 0] = 0  # no mean; times infinity it is no number in some builds of torch
    result: Tensor = torch.fft.irfft2(torch.fft.rfft2(noise.cpu()) * gains, (height, width))
    spread = result.std(correction=0).clamp_min(1e-6)
    return (0.5 + CONTRAST / spread * result).clamp(0, 1).to(noise)
