"""What a step costs: one value and gradient of the default objective against the plain one.

    python benchmarks/step_cost.py [--repeats 7] [SIZE ...]

The plain implementation is the textbook's: conv2d, relu and avg_pool2d in contiguous NCHW, the
same losses by autograd. Both are timed in turns in one run; the medians' ratio counts. Both must
find the same loss and gradient, or the comparison is none. The last columns are a whole step with
L-BFGS around it, as its callbacks see it, against the plain value and gradient.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from impasto import (
    BorderLoss,
    ContentLoss,
    Objective,
    StyleLoss,
    TotalVariationLoss,
    Vgg,
    border_variation,
    gram,
    images,
    lbfgs,
    load_encoder,
    sample,
    total_variation,
)
from impasto.settings import Settings

STYLE = Settings().style_shares
CONTENT = Settings().content_layer


class Plain:
    """The objective as one would write it down."""

    def __init__(self, encoder: Vgg, photo: Tensor, painting: Tensor) -> None:
        convs = [m for m in encoder.modules() if isinstance(m, torch.nn.Conv2d)]
        names = [name for name in encoder.layers if name.startswith("conv")]
        self.mean = torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)
        self.weights = {
            name: (conv.weight.contiguous(), conv.bias)
            for name, conv in zip(names, convs, strict=True)
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
        loss = loss + total_variation(x) + border_variation(x)
        (gradient,) = torch.autograd.grad(loss, x)
        return loss.item(), gradient


def seconds(function: Callable[[Tensor], object], image: Tensor) -> float:
    began = time.perf_counter()
    function(image)
    return time.perf_counter() - began


def seconds_a_step(objective: Objective, image: Tensor, steps: int) -> float:
    """The median time from one step to the next; the line search settles in the first three."""
    times: list[float] = []
    lbfgs(objective, image, steps=steps, callback=lambda _: times.append(time.perf_counter()))
    return statistics.median(after - before for before, after in pairwise(times[3:]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sizes", type=int, nargs="*", default=[256, 512])
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()

    encoder = load_encoder()
    print(f"{torch.get_num_threads()} threads, median of {options.repeats}\n")
    print("| size | plain, s | impasto, s | ratio | loss differs by | step, s | ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for size in options.sizes:
        photo, painting, image = (
            images.to_tensor(images.cover(images.read(sample(name)).image, (size, size)))
            for name in ("kingfisher", "cafe_terrace_at_night", "owl")
        )
        plain = Plain(encoder, photo, painting)
        with torch.no_grad():
            content = encoder(photo, [CONTENT])[CONTENT]
            style = encoder(painting, STYLE)
        objective = Objective(
            encoder,
            [
                ContentLoss(CONTENT, content),
                *(StyleLoss(layer, gram(style[layer]), 10 * STYLE[layer]) for layer in STYLE),
                TotalVariationLoss(),
                BorderLoss(),
            ],
        )
        ours, (loss, gradient) = objective(image), plain(image)
        cosine = F.cosine_similarity(ours.gradient.flatten(), gradient.flatten(), dim=0).item()
        times = [(seconds(plain, image), seconds(objective, image)) for _ in range(options.repeats)]
        slow, fast = (statistics.median(column) for column in zip(*times, strict=True))
        assert cosine > 0.9999
        steps = seconds_a_step(objective, image, options.repeats + 3)
        print(
            f"| {size} | {slow:.2f} | {fast:.2f} | {fast / slow:.2f} "
            f"| {abs(ours.loss - loss) / loss:.1e} | {steps:.2f} | {steps / slow:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
