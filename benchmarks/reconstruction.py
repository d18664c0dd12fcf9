"""How much of a photo each layer keeps: PSNR of reconstructions, with and without the prior.

    python benchmarks/reconstruction.py [--size 256] [--evaluations 150] [--photos kingfisher ...]

PSNR is in dB against the photo at the same size, for the picture as saved (8 bits). "ratio" is the
mean squared error without the prior divided by that with it, 1 where the layer has no prior.
"""

from __future__ import annotations

import argparse

import numpy as np
from PIL import Image

from impasto import reconstruct, sample, sample_names, up_to
from impasto.pictures import images

LAYERS = up_to("relu5_1")


def error(image: Image.Image, photo: Image.Image) -> float:
    """Mean squared difference, in grey levels."""
    difference = np.asarray(image, dtype=np.float64) - np.asarray(images.resize(photo, image.size))
    return float(np.square(difference).mean())


def decibels(error: float) -> float:
    return float(10 * np.log10(255**2 / error))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--evaluations", type=int, default=150)
    parser.add_argument("--photos", nargs="+", default=sample_names()["photos"])
    parser.add_argument("--layers", nargs="+", default=LAYERS)
    options = parser.parse_args()
    print("| photo | layer | PSNR | without prior | ratio |")
    print("| --- | --- | --- | --- | --- |", flush=True)
    for name in options.photos:
        photo = images.read(sample(name)).image
        for layer in options.layers:
            way = {"layers": [layer], "size": options.size, "evaluations": options.evaluations}
            artwork = reconstruct(sample(name), **way)
            own = error(artwork.image, photo)
            bare = own
            if "total variation" in artwork.parts:
                bare = error(reconstruct(sample(name), tv=0, **way).image, photo)
            print(
                f"| {name} | {layer} | {decibels(own):.1f} | {decibels(bare):.1f} "
                f"| {bare / own:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
