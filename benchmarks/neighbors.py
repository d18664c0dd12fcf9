"""What painting by neighbours costs beside Gram matrices, and how good its search is.

    python benchmarks/neighbors.py cost [--sizes 512 1024 2048] [--save FOLDER]
    python benchmarks/neighbors.py search [--sizes 512 1024 2048]

`cost` paints a pair at each size with both style losses, in turns, and prints the seconds, their
ratio, and the share of the time by neighbours that the search takes. `search` compares the search
with brute force over all places and all turns for some places of the photo, drawn by chance: how
often it finds the nearest, and by how much its cosine is lower.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from impasto import load_encoder, measure, sample, stylize
from impasto.encoders.base import Encoder
from impasto.losses import matching, neighbors
from impasto.losses.styles import Exemplar
from impasto.paint.neighboring import matched_layers
from impasto.pictures import images

PAIR = "neuschwanstein", "great_wave"
DRAWN = 2000


def cost(sizes: list[int], folder: Path | None) -> None:
    print("| pixels | gram, s | neighbors, s | ratio | searching, s | share |")
    print("| --- | --- | --- | --- | --- | --- |", flush=True)
    spent = 0.0
    plain = neighbors.losses

    def timed(*arguments: Any, **how: Any) -> Any:
        nonlocal spent
        start = time.perf_counter()
        found = plain(*arguments, **how)
        spent += time.perf_counter() - start
        return found

    neighbors.losses = timed
    for size in sizes:
        seconds = {}
        for name in ("gram", "neighbors"):
            spent = 0.0
            artwork = stylize(*map(sample, PAIR), size=size, style_loss=name)
            seconds[name] = artwork.seconds
            if folder:
                folder.mkdir(parents=True, exist_ok=True)
                artwork.save(folder / f"{'-'.join(PAIR)}-{size}-{name}.png", force=True)
        gram, ours = seconds["gram"], seconds["neighbors"]
        print(
            f"| {size} | {gram:.0f} | {ours:.0f} | {ours / gram:.2f} | {spent:.0f} "
            f"| {spent / ours:.0%} |",
            flush=True,
        )


def search(sizes: list[int]) -> None:
    print("| pixels | pairs | search, s | brute force, s | the nearest | cosine lower by |")
    print("| --- | --- | --- | --- | --- | --- |", flush=True)
    encoder = load_encoder()
    for size in sizes:
        queries, turns = places(encoder, size)
        start = time.perf_counter()
        cosines = torch.stack([matching.nearest_on_grid(queries, keys)[0] for keys in turns])
        ours = time.perf_counter() - start
        flat, found = queries.flatten(0, 1), cosines.amax(0).flatten()
        random = torch.Generator().manual_seed(0)
        drawn = torch.randperm(len(flat), generator=random)[:DRAWN]
        start = time.perf_counter()
        exact = torch.stack(
            [matching.nearest(flat[drawn], keys.flatten(0, 1))[0] for keys in turns]
        ).amax(0)
        brute = (time.perf_counter() - start) * len(flat) / len(drawn)
        lower = exact - found[drawn]
        pairs = len(flat) * sum(keys[..., 0].numel() for keys in turns)
        print(
            f"| {size} | {pairs:.1e} | {ours:.1f} | {brute:.1f} "
            f"| {(lower < 1e-4).double().mean():.0%} | {lower.mean():.3f} of {exact.mean():.3f} |",
            flush=True,
        )


def places(encoder: Encoder, size: int) -> tuple[Tensor, list[Tensor]]:
    """The queries of a photo, and the keys of a painting in all turns, as a run has them."""

    def look(image: Tensor, sides: Mapping[str, int]) -> dict[str, Tensor]:
        return measure(encoder, image, features=sides, memory=2 * 2**30)

    photo, painting = (tensor(name, size) for name in PAIR)
    strides = {layer: encoder.rows[layer].stride for layer in matched_layers(encoder)}
    border = neighbors.border_of([encoder.rows[layer] for layer in strides])
    paintings = neighbors._Paintings(look, strides, border, remembers=False)
    hunt = neighbors._Search(paintings, {layer: encoder.rows[layer] for layer in strides})
    directions = neighbors._Directions.of(hunt, [Exemplar(painting)])
    found = look(photo, hunt.sides)
    means = {layer: x.mean((0, 2, 3)) for layer, x in found.items()}
    keys = [
        directions.along(paintings(Exemplar(painting), turn, hunt.layers), directions.means)
        for turn in range(neighbors.TURNS)
    ]
    queries, *turns = (
        torch.nn.functional.normalize(x, dim=-1) for x in (directions.along(found, means), *keys)
    )
    return queries, turns


def tensor(name: str, size: int) -> Tensor:
    image = images.read(sample(name)).image
    return images.to_tensor(images.resize(image, images.fitted_size(image.size, size)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=["cost", "search"])
    parser.add_argument("--sizes", type=int, nargs="*", default=[512, 1024, 2048])
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    if options.part == "cost":
        cost(options.sizes, options.save)
    else:
        search(options.sizes)


if __name__ == "__main__":
    main()
