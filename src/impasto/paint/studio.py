"""What every kind of picture is painted with: the encoder on its device, within a budget."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from impasto import __version__, catalog
from impasto import device as machine
from impasto.encoders.base import IMAGE, Padding, load_encoder
from impasto.encoders.tiles import needed, plan
from impasto.errors import ImpastoError, notice
from impasto.kernels import ops
from impasto.losses.base import Loss
from impasto.losses.objective import Objective, measure
from impasto.losses.styles import Exemplar, Statistic
from impasto.optimise.base import Optimiser
from impasto.pictures import images
from impasto.pictures.images import Picture
from impasto.settings import FULL, RunSettings, amount, parse_memory

LEAST_HISTORY = 2
"""Pairs of past steps that L-BFGS remembers even where memory is scarce."""

CUDA_LIBRARIES = 150 * 2**20 if torch.version.cuda else 0
"""Bytes of the libraries of CUDA, which a build of torch for it loads whatever is computed on."""

CONTRAST = 0.15
"""Standard deviation of the noise that a picture starts from."""

LEAST_AREA = 1e-6
"""What covers less of a layer than this is not seen there."""

_PIXEL = 4  # bytes, in a PIL image of mode RGB
_READING = 34  # bytes a pixel, from a PIL image to an image tensor


class Studio:
    """Encoder, device and memory for one kind of picture.

    layers: those that its losses read, beside the image itself.
    targets: layers whose activations are kept whole, as what is to be reached.
    pictures: how many pixels the pictures have that went in; they are kept as they are, too.
    shown: how many bytes a pixel it takes to show a step, where that is more than its image.

    Raises:
        ImpastoError: a layer, device or weights file does not exist.
    """

    def __init__(self, settings: RunSettings, padding: Padding = "zeros") -> None:
        self.settings = settings
        self.pictures = self.shown = 0
        self.device = machine.choose_device(settings.device)
        encoder = load_encoder(settings.weights, settings.pooling, padding)
        self.encoder = encoder.to(self.device)
        self.layers = [IMAGE]
        self.targets: list[str] = []
        self.weights_file = _hashed(settings.weights)
        self.optimiser_kind: type[Optimiser] = catalog.OPTIMIZERS[settings.optimizer].load()
        self._limited = False

    def read(self, layers: Iterable[str], targets: Iterable[str] = ()) -> None:
        """Say which layers the losses read, and whose activations are targets as a whole."""
        self.targets = [self.encoder.layer(name) for name in targets]
        self.layers = [IMAGE, *self.targets, *(self.encoder.layer(name) for name in layers)]

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
            self.encoder.like(padding="zeros"),
            image,
            features=features,
            statistics=statistics or {},
            memory=self._memory - self._fixed,  # nothing is optimised yet
        )

    def floor(self, layer: str) -> float:
        """The `floor` of a `ContentLoss`: half of what a black picture has at a layer.

        Every photo with something in it is above it, and the pictures that are not (flat ones near
        the colour that the network takes for the mean, and what is left of a photo whose contrast
        is next to none) get as much paint as a fog.
        """
        black = torch.zeros(1, 3, 64, 64, dtype=torch.float32, device=self.device)
        (found,) = self.measure(black, [layer]).values()
        return 0.5 * float(found.square().mean())

    def mixed(
        self, paintings: Sequence[Exemplar], statistics: Mapping[str, Statistic]
    ) -> dict[str, Tensor]:
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
        objective = Objective(self.encoder, losses, memory=memory)
        self._limited |= objective.segments((image.shape[-2], image.shape[-1])) is not None
        return objective

    def optimiser(self, image: Tensor) -> Optimiser:
        """The optimiser chosen, for an image of this size."""
        optimiser: Optimiser = catalog.OPTIMIZERS[self.settings.optimizer].made(self.settings)
        pairs, _ = self._shares_of_memory(*_size(image))
        if pairs and pairs < self.settings.history:
            self._limited = True
            return dataclasses.replace(optimiser, history=pairs)  # type: ignore[type-var]
        return optimiser

    def limits(self) -> dict[str, Any]:
        """The memory that was allowed, where the work was cut to it: then it is part of how."""
        return {"memory": int(self._memory)} if self._limited else {}

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
            raise ImpastoError(
                f"{name} would be {size[0]} x {size[1]} pixels, but "
                f"{self.encoder.deepest(layers).name} needs at least {smallest} x {smallest}; "
                "use a larger size, or layers before it"
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
        needs = self._memory - left + self._least(size) + self._kept(size)
        self._tell(what, needs, "even in small tiles", "a smaller size takes less")
        for name, own in paintings:
            needs = self._fixed + _READING * own[0] * own[1] + self._least(own, measuring=True)
            what = f"{name} at {own[0]} x {own[1]} pixels"
            self._tell(what, needs, "to look at", "a smaller style scale takes less")

    def _tell(self, what: str, needs: float, how: str, advice: str) -> None:
        is_there = self._fixed + self.encoder.held(self.layers)
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
        left = self._memory - self._fixed - self.optimiser_kind.vectors * vector
        left -= self.shown * size[0] * size[1]
        if "history" not in {f.name for f in dataclasses.fields(self.optimiser_kind)}:  # type: ignore[arg-type]
            return 0, left
        # Half of what the smallest tiles leave: the rest makes them larger.
        spare = left - self._least(size) - self._kept(size) - 2 * LEAST_HISTORY * vector
        pairs = LEAST_HISTORY + max(0, int(spare / 2 / (2 * vector)))
        pairs = min(self.settings.history, pairs)
        return pairs, left - 2 * pairs * vector

    def _least(self, size: tuple[int, int], *, measuring: bool = False) -> float:
        """How many bytes the most frugal way of evaluating takes, weights and all."""
        upright = size[1], size[0]
        encoder = self.encoder.like(padding="zeros") if measuring else self.encoder
        segments = plan(encoder, self.layers, upright, memory=0)
        return needed(encoder, self.layers, upright, segments)

    def _kept(self, size: tuple[int, int]) -> int:
        """How many bytes the targets take that are kept whole."""
        rows = [self.encoder.rows[name] for name in self.targets]
        return sum(
            4 * row.channels * (size[0] // row.stride) * (size[1] // row.stride) for row in rows
        )

    @property
    def _fixed(self) -> int:
        """Bytes that are gone before anything is painted; what is free does without the first."""
        libraries = self.optimiser_kind.libraries + CUDA_LIBRARIES
        return (0 if self.settings.memory is None else libraries) + _PIXEL * self.pictures

    def _settle(self) -> None:
        """Prepare the kernels, once, so that what they take is there when the rest is counted."""
        if self.device.type == "cpu" and ops.status().ready:
            self.encoder.prepare(self.layers)
            machine.give_back()

    @functools.cached_property
    def _memory(self) -> int:
        """How many bytes painting may take; what is free is asked once, before it begins."""
        bound = self.settings.memory
        if bound is not None:
            return parse_memory(bound)
        return int(machine.SHARE * machine.free(self.device))


def clouds(noise: Tensor) -> Tensor:
    """White noise [1, 3, height, width] as noise whose amplitude falls with 1/f; it repeats.

    As that of pictures does: what a layer does not see of white noise would stay as grain.
    """
    height, width = noise.shape[-2:]
    rows = torch.fft.fftfreq(height, dtype=torch.float32, device="cpu")
    columns = torch.fft.rfftfreq(width, dtype=torch.float32, device="cpu")
    gains = torch.hypot(rows[:, None], columns).reciprocal()
    gains[0, 0] = 0  # no mean; to divide it by infinity gives no number in some builds of torch
    result: Tensor = torch.fft.irfft2(torch.fft.rfft2(noise.cpu()) * gains, (height, width))
    spread = result.std(correction=0).clamp_min(1e-6)
    return (0.5 + CONTRAST / spread * result).clamp(0, 1).to(noise)


def named(picture: Picture) -> dict[str, str]:
    """How a record names an input."""
    return {"name": Path(picture.name).name, "sha256": picture.sha256}


def _size(image: Tensor) -> tuple[tuple[int, int], int]:
    """(width, height) and channels of an image tensor."""
    _, channels, height, width = image.shape
    return (width, height), channels


def _hashed(weights_file: str | Path | None) -> dict[str, str] | None:
    if weights_file is None:
        return None
    path = Path(weights_file)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"name": path.name, "sha256": digest}
