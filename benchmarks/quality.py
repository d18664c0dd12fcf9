"""How close the results come: every sample photo after every sample painting.

    python benchmarks/quality.py [--size 256] [--evaluations 150] [--save FOLDER] [PHOTO ...]

For each pair, painted from the photo with the default settings: the relative style loss (mean over
relu1_1 ... relu5_1) as a share of the photo's own, and the relative content loss at relu4_2. Both
are measured here, on the picture as it is saved.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import torch
from torch import Tensor

from impasto import (
    ContentLoss,
    StyleLoss,
    Stylizer,
    Vgg,
    gram,
    images,
    sample,
    sample_names,
)

STYLE = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
CONTENT = "relu4_2"


def style_loss(encoder: Vgg, image: Tensor, painting: Tensor) -> float:
    """Mean over the five layers of sum (G - A)^2 / sum A^2."""
    features, targets = encoder(image, STYLE), encoder(painting, STYLE)
    losses = [StyleLoss(layer, gram(targets[layer]))(features[layer]).item() for layer in STYLE]
    return statistics.mean(losses)


def content_loss(encoder: Vgg, image: Tensor, photo: Tensor) -> float:
    target = encoder(photo, [CONTENT])[CONTENT]
    return ContentLoss(CONTENT, target)(encoder(image, [CONTENT])[CONTENT]).item()


def resized(name: str, size: int) -> Tensor:
    image = images.read(sample(name)).image
    return images.to_tensor(images.resize(image, images.fitted_size(image.size, size)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("photos", nargs="*", default=sample_names()["photos"])
    parser.add_argument("--paintings", nargs="*", default=sample_names()["paintings"])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--evaluations", type=int, default=150)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()

    print(f"size {options.size}, {options.evaluations} evaluations from the photo\n")
    print("| photo | painting | photo's own style | share of it left | content | seconds |")
    print("| --- | --- | --- | --- | --- | --- |", flush=True)
    shares, contents = [], []
    for painting in options.paintings:
        stylizer = Stylizer(
            sample(painting), size=options.size, steps=1000, evaluations=options.evaluations
        )
        style = resized(painting, options.size)
        for name in options.photos:
            photo = resized(name, options.size)
            artwork = stylizer.paint(sample(name))
            result = images.to_tensor(artwork.image)
            with torch.no_grad():
                own = style_loss(stylizer.studio.encoder, photo, style)
                shares.append(style_loss(stylizer.studio.encoder, result, style) / own)
                contents.append(content_loss(stylizer.studio.encoder, result, photo))
            print(
                f"| {name} | {painting} | {own:.2f} | {shares[-1]:.2%} | {contents[-1]:.3f} "
                f"| {artwork.seconds:.0f} |",
                flush=True,
            )
            if options.save:
                options.save.mkdir(parents=True, exist_ok=True)
                artwork.save(options.save / f"{name}-{painting}.png", force=True)
    print(f"| median | | | {statistics.median(shares):.2%} | {statistics.median(contents):.3f} | |")
    print(f"| worst | | | {max(shares):.2%} | {max(contents):.3f} | |")


if __name__ == "__main__":
    main()
