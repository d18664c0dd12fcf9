"""Would a ResNet do? What layers of other encoders keep, what they paint, and what they cost.

    python benchmarks/encoders.py keeps   [--encoder NAME] [--layers ...] [--save FOLDER]
    python benchmarks/encoders.py textures --sheet FILE
    python benchmarks/encoders.py style   [--only WAY ...] [--photos ...] [--save FOLDER]
    python benchmarks/encoders.py smooth  [--photos ...] [--paintings ...]
    python benchmarks/encoders.py cost    [--sizes 256 512]
    python benchmarks/encoders.py convolutions [--size 512]
    python benchmarks/encoders.py weights NAME FILE

keeps: PSNR of a photo reconstructed from each layer. style: pairs painted by layers of several
kinds, see `WAYS`. smooth: the grid in the first gradient, and evaluations until a loss is reached.
cost: time and memory of an evaluation, relative to VGG-16 and to torch by itself. convolutions:
the time of single ones, relative to torch by itself. weights: writes
a file of random weights (He et al. 2015, arXiv:1502.01852) for an encoder; `--weights FILE` uses
it in the other commands.

`judge` explains fine, shape and grid. vgg is the relative style loss of VGG-16 (mean over relu1_1
to relu5_1) divided by the photo's own, lite the distance from the painting by EfficientNet-Lite0
(`judge.Judge.painted`). Neither is fair to pictures of the other encoder, so both are given.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.nn.functional as F
from torch import Tensor

from impasto import (
    ContentLoss,
    Encoder,
    Loss,
    Objective,
    Shifted,
    Statistic,
    StyleLoss,
    catalog,
    lbfgs,
    load_encoder,
    measure,
    reconstruct,
    sample,
    sample_names,
    stylize,
    texture,
)
from impasto.kernels import ops
from impasto.pages import layout
from impasto.pictures import images
from judge import Judge, fine, grid, shape
from painted import resized, style_loss
from reconstruction import decibels, error

LITE = "efficientnet-lite0"
BLOCKS = (0, 2, 4, 7, 10)
"""The blocks whose layers are compared: the last but one of each size, and one before the last."""

Choices = dict[str, Any]


def lite(kind: str, blocks: Sequence[int] = BLOCKS, **more: Any) -> Choices:
    """Settings for style from the stem and from layers of one kind, of these blocks."""
    layers = [f"block{n}.{kind}" for n in blocks if n or not kind.startswith("expand")]
    return {"encoder": LITE, "style_layers": ["stem", *layers], **more}


WAYS: dict[str, Choices] = {
    "vgg16": {"encoder": "vgg16"},
    "merges": lite("merge"),
    "merges, one look": lite("merge", shifts=1),
    "arms: expand": lite("expand"),
    "arms: depthwise": lite("depthwise"),
    "arms: project": lite("project"),
    "arms, before ReLU6": lite("expand.conv"),
    "merges, smoothed": lite("merge", smoothing=1.0),
}
"""How style is compared, each by Gram matrices with equal shares (VGG-16 with its own)."""


def keeps(options: argparse.Namespace) -> None:
    encoder = load_encoder(options.weights, name=options.encoder)
    layers = options.layers or [name for name in encoder.layers if name != "image"]
    shown: dict[str, tuple[Any, float]] = {}
    print("| layer | stride | channels | PSNR |")
    print("| --- | --- | --- | --- |")
    for layer in layers:
        row = encoder.rows[encoder.layer(layer)]
        found = []
        for name in options.photos:
            photo = images.read(sample(name)).image
            how = {"size": options.size, "evaluations": options.evaluations, "steps": 9999}
            made = reconstruct(
                sample(name),
                layers=[layer],
                encoder=options.encoder,
                weights=options.weights,
                smoothing=options.smoothing,
                **how,
            )
            found.append(decibels(max(error(made.image, photo), 0.01)))  # 68 dB at most
            saved(options.save, f"{name}-{layer}.png", made.image)
            shown.setdefault(layer, (made.image, found[-1]))
        mean = statistics.mean(found)
        print(f"| {layer} | {row.stride} | {row.channels} | {mean:.1f} |", flush=True)
    if options.sheet:
        kept_sheet(options.photos[0], shown).save(options.sheet, quality=85, optimize=True)


def kept_sheet(photo: str, shown: Mapping[str, tuple[Any, float]]) -> Any:
    """A page of one photo: a row for each kind of layer, and a column for each block."""
    blocks = [*dict.fromkeys(name.split(".")[0] for name in shown if "." in name)]
    kinds = [*dict.fromkeys(name.partition(".")[2] for name in shown if "." in name)]
    cells = []
    for kind, block in itertools.product(kinds, blocks):
        picture, kept = shown.get(f"{block}.{kind}", (None, 0.0))
        cells.append((f"{kept:.1f} dB" if picture else "no such layer", picture))
    original = images.read(sample(photo)).image
    return layout.contact_sheet(
        cells, row_labels=kinds, column_labels=blocks, originals=[(photo, original)]
    )


def textures(options: argparse.Namespace) -> None:
    """A page of textures: a row for each kind of layer; layers are added from column to column."""
    painting, kinds, cells = options.paintings[0], ("merge", "expand", "depthwise", "project"), []
    blocks = [2, 4, 7, 10]
    for kind, count in itertools.product(kinds, range(1, len(blocks) + 1)):
        layers = [f"block{n}.{kind}" for n in blocks[:count]]
        how = {"size": (options.size, options.size), "steps": 100, "painting_size": options.size}
        made = texture(sample(painting), encoder=LITE, layers=["stem", *layers], **how)
        cells.append(("", made.image))
        print(kind, count, f"{made.losses[-1]:.3g}", flush=True)
    labels = ["stem, block2", *(f"and block{n}" for n in blocks[1:])]
    original = (painting, images.read(sample(painting)).image)
    page = layout.contact_sheet(cells, row_labels=kinds, column_labels=labels, originals=[original])
    page.save(options.sheet, quality=68, optimize=True)


def style(options: argparse.Namespace) -> None:
    judge, vgg = Judge(), load_encoder()
    names = ("way", "fine", "shape", "vgg", "lite", "grid 2", "grid 4", "grid 8", "seconds")
    shown: list[tuple[str, Any]] = []
    print(f"| {' | '.join(names)} |\n|{' --- |' * len(names)}")
    more = {name: json.loads(text) for name, _, text in (x.partition("=") for x in options.more)}
    ways = {**WAYS, **more}
    for way in [*options.only, *more] or WAYS:
        rows, pictures = [], []
        for painting, photo in itertools.product(options.paintings, options.photos):
            start = time.perf_counter()
            made = stylize(
                sample(photo),
                sample(painting),
                size=options.size,
                steps=options.steps,
                **{"style_loss": "gram", "weights": options.weights, **ways[way]},
            )
            seconds = time.perf_counter() - start
            name = "".join(c if c.isalnum() else "-" for c in way)
            saved(options.save, f"{name}/{photo}-{painting}.png", made.image)
            picture = images.to_tensor(made.image)
            longer = max(picture.shape)
            content, aim = resized(photo, longer), resized(painting, longer)
            with torch.no_grad():
                own = style_loss(vgg, picture, aim) / style_loss(vgg, content, aim)
                rows.append(
                    (
                        fine(picture, content),
                        shape(picture, content),
                        own,
                        judge.painted(picture, content, aim),
                        seconds,
                    )
                )
            pictures.append(picture)
        *medians, seconds = (statistics.median(column) for column in zip(*rows, strict=True))
        grids = [grid(pictures, period) for period in (2, 4, 8)]
        told = [*(f"{value:.2f}" for value in medians), *(f"{value:.1f}" for value in grids)]
        print(f"| {way} | {' | '.join(told)} | {seconds:.0f} |", flush=True)
        shown += [(way, images.to_image(picture)) for picture in pictures[:1]]
    if options.sheet:
        pair = options.photos[0], options.paintings[0]
        originals = [(name, images.read(sample(name)).image) for name in pair]
        labels = [way for way, _ in shown]
        cells = [("", picture) for _, picture in shown]
        page = layout.contact_sheet(
            cells, row_labels=[""], column_labels=labels, originals=originals
        )
        page.save(options.sheet, quality=68, optimize=True)


def saved(folder: Path | None, name: str, picture: Any) -> None:
    if folder:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)


def objective(
    encoder: Encoder,
    layers: Sequence[str],
    content_layer: str,
    photo: Tensor,
    painting: Tensor,
) -> Objective:
    """Content and style, both relative; the style counts ten times."""
    statistics_ = {f"style {layer}": Statistic(layer) for layer in layers}
    targets = measure(encoder, painting, statistics=statistics_)
    content = measure(encoder, photo, features=[content_layer])[content_layer]
    losses: list[Loss] = [ContentLoss(content_layer, content)]
    losses += [StyleLoss(n, targets[f"style {n}"], 10 / len(layers)) for n in layers]
    return Objective(encoder, losses)


def smooth(options: argparse.Namespace) -> None:
    """From the blurred photo, at one size, by L-BFGS as it is."""
    names = ("way", "grid 2", "grid 4", "grid 8", "to 1/2", "to 1/4", "to 1/8", "to 1/16")
    print(f"| {' | '.join(names)} |\n|{' --- |' * len(names)}")
    vgg = load_encoder()
    network = load_encoder(name=LITE)
    merges, arms = lite("merge")["style_layers"], lite("expand")["style_layers"]
    four = Shifted(network, 2)
    ways: dict[str, tuple[Encoder, Sequence[str]]] = {
        "vgg16": (vgg, list(vgg.style_layers)),
        "vgg16, max pooling": (vgg.like(pooling="max"), list(vgg.style_layers)),
        "vgg16, smoothed": (vgg.like(smoothing=1.0), list(vgg.style_layers)),
        "merges, one look": (network, merges),
        "merges": (four, merges),
        "merges, one look, smoothed": (network.like(smoothing=1.0), merges),
        "merges, smoothed": (four.like(smoothing=1.0), merges),
        "arms: expand, one look": (network, arms),
        "arms: expand": (four, arms),
        "arms: expand, smoothed": (four.like(smoothing=1.0), arms),
    }
    for kind in ("vgg16", "resnet18"):
        random = drawn(catalog.ENCODERS[kind].load())
        ways[f"random {kind}"] = random, list(random.style_layers)
    for way in options.only or ways:
        encoder, layers = ways[way]
        gradients, needed = [], []
        for photo_name, painting_name in itertools.product(options.photos, options.paintings):
            photo, painting = (resized(n, options.size) for n in (photo_name, painting_name))
            start = images.blurred(photo, options.size / 80)
            function = objective(encoder, layers, encoder.content_layer, photo, painting)
            gradients.append(function(start).gradient)
            steps: list[tuple[int, float]] = []
            lbfgs(
                function,
                start,
                steps=options.steps,
                callback=lambda step, steps=steps: steps.append((step.evaluations, step.loss)),  # type: ignore[misc]
            )
            first = steps[0][1]
            needed.append(
                [
                    next((n for n, loss in steps if loss <= first / part), options.steps)
                    for part in (2, 4, 8, 16)
                ]
            )
        grids = [grid(gradients, period) for period in (2, 4, 8)]
        counts = [statistics.median(column) for column in zip(*needed, strict=True)]
        told = [*(f"{value:.1f}" for value in grids), *(f"{value:.0f}" for value in counts)]
        print(f"| {way} | {' | '.join(told)} |", flush=True)


@contextlib.contextmanager
def plain_torch() -> Iterator[None]:
    """Torch alone, as a model of torchvision's would compute, without our kernels."""
    suits = ops.suits
    ops.suits = lambda x: False  # noqa: ARG005
    try:
        yield
    finally:
        ops.suits = suits


def cost(options: argparse.Namespace) -> None:
    """Time of an evaluation of content and style losses; memory of a process that makes three."""
    print("| encoder | size | seconds | of VGG-16's | of plain torch's | memory | of VGG-16's |")
    print(f"|{' --- |' * 7}")
    for size in options.sizes:
        base: Mapping[str, float] = {}
        looks = [(name, 1) for name in catalog.ENCODERS] + [(LITE, 2), ("resnet18", 2)]
        for name, shifts in looks:
            command = [sys.executable, __file__, "one", name, str(size), str(shifts)]
            told = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
            found = json.loads(told)
            base = base or found
            print(
                f"| {name}{', four looks' if shifts > 1 else ''} | {size} | {found['seconds']:.2f} "
                f"| {found['seconds'] / base['seconds']:.2f} "
                f"| {found['seconds'] / found['plain']:.2f} | {found['memory'] / 2**20:.0f} MB "
                f"| {found['memory'] / base['memory']:.2f} |",
                flush=True,
            )


def one(options: argparse.Namespace) -> None:
    row: Any = catalog.ENCODERS[options.name]
    blueprint = row.load()
    encoder = drawn(blueprint) if row.needs_file else load_encoder(name=options.name)
    encoder = encoder if options.shifts == 1 else Shifted(encoder, options.shifts)
    random = torch.Generator().manual_seed(0)
    photo, painting, image = (
        torch.rand(1, 3, options.side, options.side, generator=random) for _ in range(3)
    )
    layers = list(encoder.style_layers)
    encoder.prepare([*layers, encoder.content_layer])
    function = objective(encoder, layers, encoder.content_layer, photo, painting)
    with peak() as memory:
        function(image)
    times: dict[str, list[float]] = {"seconds": [], "plain": []}
    for _ in range(options.steps):
        for kind in times:
            with plain_torch() if kind == "plain" else contextlib.nullcontext():
                start = time.perf_counter()
                function(image)
                times[kind].append(time.perf_counter() - start)
    told = {kind: statistics.median(found[1:] or found) for kind, found in times.items()}
    print(json.dumps({**told, "memory": memory[0]}))


@contextlib.contextmanager
def peak() -> Iterator[list[int]]:
    """How many bytes more the process takes meanwhile at most, looked at every 2 milliseconds."""
    process, over, most = psutil.Process(), threading.Event(), [0]
    before: int = process.memory_info().rss

    def watch() -> None:
        while not over.wait(0.002):
            most[0] = max(most[0], process.memory_info().rss - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield most
    finally:
        over.set()
        watcher.join()


SINGLE = (
    ("7 x 7, stride 2", "resnet18", "image", "conv1"),
    ("3 x 3, stride 2", LITE, "image", "stem.conv"),
    ("3 x 3, stride 2", "resnet18", "layer1.1.merge", "layer2.0.conv1"),
    ("3 x 3, compiled", "resnet18", "layer1.0.merge", "layer1.1.conv1"),
    ("depthwise 3 x 3", LITE, "block2.expand", "block2.depthwise.conv"),
    ("depthwise 3 x 3, stride 2", LITE, "block1.expand", "block1.depthwise.conv"),
    ("depthwise 5 x 5", LITE, "block4.expand", "block4.depthwise.conv"),
    ("depthwise 5 x 5, stride 2", LITE, "block3.expand", "block3.depthwise.conv"),
    ("1 x 1", LITE, "block4.depthwise", "block4.project"),
)
"""Single convolutions: what they are, the encoder, the layer before, the layer."""


def convolutions(options: argparse.Namespace) -> None:
    """Forward and back through one convolution, relative to torch's as it is, in its own layout."""
    print("| convolution | layer | seconds, of torch's |\n| --- | --- | --- |")
    for kind, name, before, layer in SINGLE:
        row: Any = catalog.ENCODERS[name]
        encoder: Any = drawn(row.load()) if row.needs_file else load_encoder(name=name)
        operation = encoder.operations[layer]
        side = options.size // encoder.rows[before].stride
        x = torch.rand(1, encoder.rows[before].channels, side, side)
        weight, bias = encoder.read(layer)
        pads = encoder._pads(operation, side, side)

        def ours(x: Tensor, encoder: Any = encoder, layer: str = layer, at: str = before) -> Tensor:
            result: Tensor = encoder(x, [layer], at)[layer]
            return result

        def theirs(
            x: Tensor,
            given: Any = (weight, bias, operation.stride, pads, operation.groups),
            first: Any = encoder.preprocessing.apply if before == "image" else None,
        ) -> Tensor:
            weight, bias, stride, (before, behind), groups = given
            x = first(x) if first else x
            if before == behind:
                return F.conv2d(x, weight, bias, stride, before, 1, groups)
            return F.conv2d(F.pad(x, (before, behind) * 2), weight, bias, stride, 0, 1, groups)

        # Activations come as other layers leave them, an image as an optimiser does.
        own = x if before == "image" else x.contiguous(memory_format=torch.channels_last)
        ways: list[tuple[Callable[[Tensor], Tensor], Tensor]] = [
            (ours, own),
            (theirs, x),
        ]
        ratios = []
        for _ in range(15):
            times = []
            for compute, given in ways:
                variables = given.detach().requires_grad_(True)
                start = time.perf_counter()
                y = compute(variables)
                torch.autograd.grad(y, variables, torch.ones_like(y))
                times.append(time.perf_counter() - start)
            ratios.append(times[0] / times[1])
        print(f"| {kind} | {name} {layer} | {statistics.median(ratios):.2f} |", flush=True)


def drawn(blueprint: Any) -> Encoder:
    """An encoder with random weights, through a file as a user would give it."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pth"
        write(blueprint, path)
        return load_encoder(path, name=blueprint.name)


def write(blueprint: Any, path: Path) -> None:
    """Weights of variance 2 / inputs and no biases, with torchvision's names."""
    random = torch.Generator().manual_seed(0)
    state: dict[str, Tensor] = {}
    for number, (name, weight) in enumerate(blueprint.convolutions.items()):
        out, inside, *kernel = weight
        values = torch.randn(weight, generator=random) * (2 / (inside * kernel[0] ** 2)) ** 0.5
        if blueprint.name.startswith("vgg"):
            state[f"features.{number}.weight"] = values
            state[f"features.{number}.bias"] = torch.zeros(out)
            continue
        block, _, kind = name.rpartition(".")
        last = "conv3" if blueprint.name == "resnet50" else "conv2"
        kind = {"arm": last, "shortcut": "downsample.0"}.get(kind, kind)
        norm = "downsample.1" if kind == "downsample.0" else f"bn{kind[-1]}"
        prefix = f"{block}." if block else ""
        state[f"{prefix}{kind}.weight"] = values
        # An arm of half the weight, so that sums do not grow from block to block.
        state[f"{prefix}{norm}.weight"] = torch.full((out,), 0.5 if "arm" in name else 1.0)
        state[f"{prefix}{norm}.bias"] = state[f"{prefix}{norm}.running_mean"] = torch.zeros(out)
        state[f"{prefix}{norm}.running_var"] = torch.ones(out)
    torch.save(state, path)


def weights(options: argparse.Namespace) -> None:
    write(catalog.ENCODERS[options.name].load(), options.file)


def main() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)

    def command(run: Callable[[argparse.Namespace], None], size: int = 256) -> Any:
        made = commands.add_parser(run.__name__)
        made.set_defaults(run=run)
        made.add_argument("--photos", nargs="+", default=sample_names()["photos"])
        made.add_argument("--paintings", nargs="+", default=sample_names()["paintings"])
        made.add_argument("--size", type=int, default=size)
        made.add_argument("--weights", type=Path)
        made.add_argument("--save", type=Path)
        made.add_argument("--only", nargs="+", default=[])
        return made

    keeping = command(keeps, 192)
    keeping.add_argument("--encoder", default=LITE)
    keeping.add_argument("--layers", nargs="+")
    keeping.add_argument("--evaluations", type=int, default=200)
    keeping.add_argument("--smoothing", type=float)
    keeping.add_argument("--sheet", type=Path, help="a page of the first photo")
    grown = command(textures, 128)
    grown.add_argument("--sheet", type=Path, required=True, help="the page")
    painting = command(style)
    painting.add_argument("--steps", type=int, default=100)
    painting.add_argument("--sheet", type=Path, help="a page of the first pair")
    painting.add_argument("--more", nargs="+", default=[], help="NAME=SETTINGS in JSON")
    command(smooth).add_argument("--steps", type=int, default=150)
    command(cost).add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    single = command(one)
    single.add_argument("name")
    single.add_argument("side", type=int)
    single.add_argument("shifts", type=int)
    single.add_argument("--steps", type=int, default=7)
    command(convolutions)
    drawing = command(weights)
    drawing.add_argument("name")
    drawing.add_argument("file", type=Path)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
