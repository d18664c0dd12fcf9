"""Make the pictures and tables of docs/networks.md.

    python benchmarks/networks.py PART ... [--photos FOLDER] [--network NAME|FILE]

The parts are checkerboard, norms and photos, which train small networks on the photos in FOLDER
(five to fifteen minutes each on two cores); own, which adds a style to the network on them in ten;
and twenty, mixture and sizes, which need no photos. Pictures go to docs/networks/, tables to
standard output.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from impasto import Network, Training, TrainSettings, sample, sample_names, stylize
from impasto.networks.architecture import Layer
from impasto.networks.photos import Photos
from impasto.networks.transform import Convolution
from impasto.pages.layout import contact_sheet
from impasto.pictures import images
from judge import grid, spectrum

NETWORKS = Path(__file__).parent.parent / "docs" / "networks"
PERIODS = 2, 4, 8
QUICK = TrainSettings(size=96, batch=4, steps=600, rate=2e-3, style_layers="first")
STYLES = "great_wave", "night_cafe"


class Transposed(Convolution):
    """Grows by a transposed convolution, as Johnson et al. 2016 did."""

    def convolved(self, x: Tensor) -> Tensor:
        """See `Convolution`."""
        if self.layer.enlarged == 1:
            return super().convolved(x)
        kernel = self.weight.transpose(0, 1)
        return F.conv_transpose2d(x, kernel, stride=2, padding=1, output_padding=1)


class Nearest(Convolution):
    """Enlarges by repeating each position."""

    def convolved(self, x: Tensor) -> Tensor:
        """See `Convolution`."""
        if self.layer.enlarged == 1:
            return super().convolved(x)
        x = F.interpolate(x, scale_factor=float(self.layer.enlarged), mode="nearest")
        return F.conv2d(F.pad(x, (self.layer.kernel // 2,) * 4, mode="reflect"), self.weight)


class BatchNormalised(Convolution):
    """Normalises by the mean and variance of the batch; when it paints, by those of training."""

    def __init__(self, layer: Layer, styles: int, generator: torch.Generator) -> None:
        super().__init__(layer, styles, generator)
        self.norm = nn.BatchNorm2d(layer.outputs, affine=False)

    def normalised(self, x: Tensor) -> Tensor:
        """See `Convolution`."""
        normal: Tensor = self.norm(x)
        return normal


def started(photos: Photos, **more: Any) -> Training:
    """A small training before its first step."""
    settings = dataclasses.replace(QUICK, **more)
    return Training([images.read(sample(name)) for name in STYLES], photos, settings)


def trained(
    photos: Photos,
    kind: type[Convolution] = Convolution,
    weight: float | None = None,
    **more: Any,
) -> Training:
    """A small training in which all layers are of this kind; without a grid loss."""
    training = started(photos, **more)
    training.judge.style_weight = weight or training.judge.style_weight
    training.judge.grids = ()
    student = training.student
    random = torch.Generator().manual_seed(0)
    for layer in student.architecture.layers:
        student.layers[layer.name] = kind(layer, len(STYLES), random)
    training.teach(student)
    for step in training:
        if step.validation:
            print(f"  step {step.step}: {step.validation}", flush=True)
    return training


def painted(training: Training, style: int, longer: int = 384) -> list[Tensor]:
    """The sample photos in one style, as the running mean paints them."""
    shares = torch.eye(len(STYLES))[[style]]
    found = []
    with training.showing(), torch.no_grad():
        for name in sample_names()["photos"]:
            image = images.read(sample(name)).image
            photo = images.to_tensor(images.resize(image, images.fitted_size(image.size, longer)))
            found.append(training.student(photo, shares))
    return found


def variants(folder: Path, kinds: dict[str, type[Convolution]], name: str) -> None:
    """Train a network of each kind, and show and measure what they paint."""
    photos = Photos(folder, QUICK.size)
    cells: list[tuple[str, Image.Image]] = []
    print(f"| {name} | style | content | grid at {', '.join(map(str, PERIODS))} pixels |")
    print("| --- | --- | --- | --- |")
    goals = {style: images.to_tensor(images.read(sample(style)).image) for style in STYLES}
    for label, kind in kinds.items():
        training = trained(photos, kind)
        made = {style: painted(training, n) for n, style in enumerate(STYLES)}
        ratios = [
            max(grid(made[style], period) / grid([goals[style]], period) for style in STYLES)
            for period in PERIODS
        ]
        losses = training.validation[-1]
        told = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"| {label} | {losses[3]:.3f} | {losses[2]:.3f} | {told} |", flush=True)
        cells += [("", images.to_image(made[style][1])) for style in STYLES]
        cells.append(("", shown(spectrum(made[STYLES[0]]))))
    columns = [*STYLES, f"spectrum ({STYLES[0]})"]
    sheet = contact_sheet(cells, row_labels=list(kinds), column_labels=columns, originals=[])
    saved(sheet, name)


def shown(power: NDArray[Any]) -> Image.Image:
    """A spectrum as a picture: long waves in the middle, those of two pixels at the edge."""
    decades = np.log10(np.fft.fftshift(power) / power.max()) + 8  # of power, above black
    grey = Image.fromarray((decades.clip(0, 8) * 255 / 8).astype(np.uint8))
    return grey.resize((256, 256), Image.Resampling.NEAREST).convert("RGB")


def checkerboard(folder: Path) -> None:
    variants(
        folder,
        {
            "transposed convolution": Transposed,
            "enlarged (nearest), then convolved": Nearest,
            "enlarged (bilinear), then convolved": Convolution,
        },
        "checkerboard",
    )


def norms(folder: Path) -> None:
    variants(
        folder,
        {"instance normalisation": Convolution, "batch normalisation": BatchNormalised},
        "norms",
    )


def photos_needed(folder: Path) -> None:
    """Train on more and more photos, long enough to learn a few by heart, in small crops.

    The validation loss is always that of the same other photos.
    """
    settings: dict[str, Any] = {"size": 64, "steps": 2400}
    photos = Photos(folder, settings["size"])
    every = list(photos.paths)
    weight = started(photos, **settings).judge.style_weight  # for all, so that totals compare
    print("| photos | after steps | training, total | held-out photos, total |")
    print("| --- | --- | --- | --- |")
    for count in (10, 50, len(every)):
        photos.paths = every[:: max(1, len(every) // count)][:count]
        training = trained(photos, weight=weight, **settings)
        for step in (600, 1200, 2400):
            last = np.mean([row[-1] for row in training.course[step - 200 : step]])
            (held_out,) = [row[-1] for row in training.validation if row[0] == step]
            print(f"| {count} | {step} | {last:.3f} | {held_out:.3f} |", flush=True)


def own(folder: Path, network: Network) -> None:
    """Add a painting to the network, and compare it with one that was learned with all others.

    The painting is the great wave, turned by a quarter, in lilac and green: it has other strokes
    and colours than all five, and is about as hard as the great wave itself.
    """
    wave = images.read(sample("great_wave")).image
    red, green, blue = wave.transpose(Image.Transpose.ROTATE_90).split()
    turned = Image.merge("RGB", (green, blue, red))
    settings = TrainSettings(size=256, batch=2, strength=0.33, style_layers="first", minutes=10)
    photos = Photos(folder, settings.size)
    print("| style | steps | style loss | content loss |\n| --- | --- | --- | --- |")
    training = Training([images.read(turned)], photos, settings, base=network.file)
    for step in training:
        if step.step in (100, 300) or step.done == 1:
            _, _, content, style, _ = training.validation[-1]
            print(f"| added | {step.step} | {style:.3f} | {content:.3f} |", flush=True)
    joint = Training([images.read(wave)], photos, settings)
    held_out = joint.held_out
    pictures = network(held_out, "great_wave")
    losses = joint.judge(pictures, held_out, [0] * len(held_out)).losses
    print(f"| learned with the others | | {losses.style:.3f} | {losses.content:.3f} |")
    print(f"\nstyle: {style / losses.style:.2f} times the other's")
    added = Network(training.network)
    image = images.read(sample("neuschwanstein")).image
    photo = images.resize(image, images.fitted_size(image.size, 512))
    shown = [
        images.resize(turned, images.fitted_size(turned.size, 342)),
        added(photo, added.styles[-1]),
        added(photo, "great_wave"),
    ]
    columns = ["added painting", "ten minutes later", "the great wave itself"]
    cells = [("", each) for each in shown]
    saved(contact_sheet(cells, row_labels=[""], column_labels=columns, originals=[]), "own")


def twenty(network: Network) -> None:
    """Every sample photo after every style."""
    photos = [images.read(sample(name)).image for name in sample_names()["photos"]]
    photos = [images.resize(each, images.fitted_size(each.size, 512)) for each in photos]
    width, height = (max(sides) for sides in zip(*(each.size for each in photos), strict=True))
    sheet = Image.new("RGB", (4 * (width + 4), 5 * (height + 4)), "white")
    for row, style in enumerate(network.styles):
        for column, picture in enumerate(network(photos, style)):
            sheet.paste(picture, (column * (width + 4), row * (height + 4)))
    saved(sheet, "twenty")


def mixture(network: Network) -> None:
    """From one painting to another, in steps."""
    image = images.read(sample("neuschwanstein")).image
    photo = images.resize(image, images.fitted_size(image.size, 400))
    cells, labels = [], []
    for first, second in (("great_wave", "night_cafe"), ("composition_viii", "church_at_auvers")):
        labels.append(f"{first} to {second}")
        for share in (0, 0.25, 0.5, 0.75, 1):
            picture = network(photo, {first: 1 - share, second: share})
            cells.append(("", picture))
    columns = [f"{share} %" for share in (0, 25, 50, 75, 100)]
    saved(contact_sheet(cells, row_labels=labels, column_labels=columns, originals=[]), "mixture")


def sizes(network: Network) -> None:
    """One pass beside optimisation, at 512 and 2048 pixels, with their times."""
    image = images.read(sample("neuschwanstein")).image
    cells: list[tuple[str, Image.Image]] = []
    for longer in (512, 2048):
        photo = images.resize(image, images.fitted_size(image.size, longer))
        network(photo, "great_wave")
        quick, one_pass = timed(partial(network, photo, "great_wave"))
        slow, artwork = timed(
            partial(stylize, image, sample("great_wave"), size=longer, style_loss="gram")
        )
        print(f"| {longer} | {quick:.2f} | {slow:.0f} | {slow / quick:.0f} |", flush=True)
        cells += [(f"one pass, {quick:.2f} s", one_pass), (f"stylize, {slow:.0f} s", artwork.image)]
    rows = ["512 pixels", "2048 pixels"]
    columns = ["one pass", "optimised"]
    saved(contact_sheet(cells, row_labels=rows, column_labels=columns, originals=[]), "sizes")


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def saved(sheet: Image.Image, name: str) -> None:
    NETWORKS.mkdir(exist_ok=True)
    small = (
        images.resize(sheet, images.fitted_size(sheet.size, 1600)) if sheet.width > 1600 else sheet
    )
    small.save(NETWORKS / f"{name}.jpg", quality=86, optimize=True, progressive=True)


TRAINED: dict[str, Callable[[Path], None]] = {
    "checkerboard": checkerboard,
    "norms": norms,
    "photos": photos_needed,
}
PAINTED: dict[str, Callable[[Network], None]] = {
    "twenty": twenty,
    "mixture": mixture,
    "sizes": sizes,
}
OWN = "own"


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="+", choices=[*TRAINED, *PAINTED, OWN])
    parser.add_argument("--photos", type=Path, help="a folder, for parts that train")
    parser.add_argument("--network", default="samples")
    options = parser.parse_args(given)
    if not options.photos and {*options.parts} & {*TRAINED, OWN}:
        parser.error("these parts need --photos FOLDER")
    for part in options.parts:
        print(f"\n{part}\n", flush=True)
        if part in TRAINED:
            TRAINED[part](options.photos)
        elif part in PAINTED:
            PAINTED[part](Network.load(options.network))
        else:
            own(options.photos, Network.load(options.network))


if __name__ == "__main__":
    main()
