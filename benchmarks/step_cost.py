"""The time that a step takes, and how much of it each optimisation saves.

    python benchmarks/step_cost.py [--repeats 7] [SIZE ...]

One value and gradient of the default objective is compared with a textbook implementation: conv2d,
relu and avg_pool2d in contiguous NCHW, and the same losses by autograd. All ways are timed in turns
in one run, and medians are compared; all have to find the same loss and gradient. Then follow a
whole step of L-BFGS, and the time for each picture in batches of 1, 2, 4 and 8 at 256 pixels, each
with its own content target. "share of peak" is relative to the rate of a large matrix product in
the same run, and counts the multiplications of plain convolution, four times as many as Winograd's.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from impasto import (
    ContentLoss,
    Encoder,
    Evaluation,
    Loss,
    Objective,
    Statistic,
    StyleLoss,
    TotalVariationLoss,
    Vgg,
    lbfgs,
    load_encoder,
    measure,
    sample,
    total_variation,
)
from impasto.kernels import ops as compiled
from impasto.pictures import images
from impasto.settings import Settings

STYLE = load_encoder().style_layers
CONTENT = load_encoder().content_layer


class Plain:
    """The textbook implementation of the objective."""

    def __init__(self, encoder: Encoder, photo: Tensor, painting: Tensor) -> None:
        assert isinstance(encoder, Vgg)
        self.mean = torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)
        self.weights = {
            name: (encoder.state[f"{name}.weight"].float(), encoder.state[f"{name}.bias"].float())
            for name in encoder.layers
            if name.startswith("conv")
        }
        with torch.no_grad():
            self.content = self.features(photo)[CONTENT]
            self.style = {layer: self.gram(self.features(painting)[layer]) for layer in STYLE}

    def features(self, image: Tensor) -> dict[str, Tensor]:
        x = image[:, [2, 1, 0]] * 255 - self.mean
        features = {}
        for name, (weight, bias) in self.weights.items():
            if name.endswith("_1") and name != "conv1_1":
                x = F.avg_pool2d(x, 2)
            x = F.relu(F.conv2d(x, weight, bias, padding=1))
            features[name.replace("conv", "relu")] = x
            if name == "conv5_1":
                break
        return features

    @staticmethod
    def gram(features: Tensor) -> Tensor:
        f = features.flatten(2)[0]
        return f @ f.T / f.shape[1]

    def __call__(self, image: Tensor) -> tuple[float, Tensor]:
        x = image.clone().requires_grad_(True)
        features = self.features(x)
        loss = (features[CONTENT] - self.content).square().sum() / self.content.square().sum()
        for layer, share in STYLE.items():
            target = self.style[layer]
            error = (self.gram(features[layer]) - target).square().sum()
            loss = loss + 10 * share * error / target.square().sum()
        loss = loss + Settings().tv * total_variation(x)
        (gradient,) = torch.autograd.grad(loss, x)
        return loss.item(), gradient


def seconds(function: Callable[[Tensor], object], image: Tensor) -> float:
    began = time.perf_counter()
    function(image)
    return time.perf_counter() - began


def seconds_a_step(objective: Objective, image: Tensor, steps: int) -> float:
    """The median time of a step, without the first three, in which the line search settles."""
    times: list[float] = []
    lbfgs(objective, image, steps=steps, callback=lambda _: times.append(time.perf_counter()))
    return statistics.median(after - before for before, after in pairwise(times[3:]))


def peak() -> float:
    """Floating-point operations a second in a large matrix product."""
    a = torch.rand(3000, 3000)
    times = [seconds(lambda x: x @ x, a) for _ in range(5)]
    return 2 * 3000**3 / statistics.median(times[1:])


def operations(size: int) -> float:
    """The floating-point operations of plain convolutions up to relu5_1, forward and backward."""
    total, before = 0.0, 3
    for pools, (channels, count) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 1))):
        for _ in range(count):
            total += 2 * 9 * before * channels * (size >> pools) ** 2
            before = channels
    return 2 * total


@contextlib.contextmanager
def without_kernels() -> Iterator[None]:
    """Switch the compiled kernels off in the block."""
    status = compiled.status
    compiled.status = lambda: compiled.Status(False, "the benchmark")  # type: ignore[assignment]
    try:
        yield
    finally:
        compiled.status = status


def batches(encoder: Encoder, repeats: int, size: int = 256) -> None:
    """Print the seconds for a picture in batches of several sizes, timed in turns."""
    photos = torch.cat(
        [
            images.to_tensor(images.cover(images.read(sample(name)).image, (size, size)))
            for name in ("kingfisher", "owl", "scarlet_macaw", "neuschwanstein")
        ]
        * 2
    )
    content = measure(encoder, photos, features=[CONTENT])[CONTENT]
    painting = photos[:1].flip(-1)
    style = measure(encoder, painting, statistics={name: Statistic(name) for name in STYLE})
    objectives = {
        count: Objective(
            encoder,
            [
                ContentLoss(CONTENT, content[:count]),
                *(StyleLoss(name, style[name], 10 * STYLE[name]) for name in STYLE),
                TotalVariationLoss(Settings().tv),
            ],
        )
        for count in (1, 2, 4, 8)
    }
    rounds = [
        [seconds(objective, photos[:count]) / count for count, objective in objectives.items()]
        for _ in range(repeats)
    ]
    medians = [statistics.median(column) for column in zip(*rounds, strict=True)]
    print("\n| batch | s a picture | against one |\n| --- | --- | --- |")
    for count, median in zip(objectives, medians, strict=True):
        print(f"| {count} | {median:.3f} | {median / medians[0]:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sizes", type=int, nargs="*", default=[256, 512])
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()

    encoder = load_encoder()
    best = peak()
    print(f"{torch.get_num_threads()} threads, median of {options.repeats}; ", end="")
    print(f"{best / 1e9:.0f} GFLOP/s in a large matrix product\n")
    print("| size | what | s | against plain | share of peak | loss differs by | cosine |")
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for size in options.sizes:
        photo, painting, image = (
            images.to_tensor(images.cover(images.read(sample(name)).image, (size, size)))
            for name in ("kingfisher", "cafe_terrace_at_night", "owl")
        )
        plain = Plain(encoder, photo, painting)
        targets = measure(encoder, photo, features=[CONTENT])
        targets |= measure(encoder, painting, statistics={n: Statistic(n) for n in STYLE})
        losses: list[Loss] = [
            ContentLoss(CONTENT, targets[CONTENT]),
            *(StyleLoss(name, targets[name], 10 * STYLE[name]) for name in STYLE),
            TotalVariationLoss(Settings().tv),
        ]
        objective = Objective(encoder, losses)

        def eager(image: Tensor, objective: Objective = objective) -> Evaluation:
            with without_kernels():
                return objective(image)

        ways: dict[str, Callable[[Tensor], object]] = {
            "plain: contiguous, eager": plain,
            "channels last, in place, nothing twice": eager,
            "compiled kernels": objective,
        }
        loss, gradient = plain(image)
        rounds = [[seconds(way, image) for way in ways.values()] for _ in range(options.repeats)]
        medians = [statistics.median(column) for column in zip(*rounds, strict=True)]
        for name, way, median in zip(ways, ways.values(), medians, strict=True):
            result = way(image)
            if isinstance(result, Evaluation):
                found = result.gradient.flatten()
                cosine = F.cosine_similarity(found, gradient.flatten(), dim=0).item()
                same = f"{abs(result.loss - loss) / loss:.1e} | {cosine:.7f}"
                assert cosine > 0.9999
            else:
                same = " | "
            share = operations(size) / median / best
            ratio = median / medians[0]
            print(f"| {size} | {name} | {median:.3f} | {ratio:.2f} | {share:.0%} | {same} |")
        step = seconds_a_step(objective, image, options.repeats + 3)
        print(
            f"| {size} | a whole step with L-BFGS | {step:.3f} | {step / medians[0]:.2f} | | | |",
            flush=True,
        )
    batches(encoder, options.repeats)


if __name__ == "__main__":
    main()
