"""Make the pictures and tables of docs/answers.md, with `impasto compare` at 256 pixels.

    python examples/answers.py [QUESTION ...]

All of them take about twenty minutes on two cores. Everything is written to docs/answers/.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from impasto import sample
from impasto.apps.cli.main import main as impasto
from impasto.pictures import images

FOLDER = Path(__file__).parent.parent / "docs" / "answers"
WIDEST = 1600

GRAM = ("--style-loss", "gram")

METHODS = ("neuschwanstein-great_wave", "owl-composition_viii", "scarlet_macaw-church_at_auvers")

QUESTIONS: dict[str, Sequence[str]] = {
    "pooling": ("kingfisher", "great_wave", *GRAM, "--vary", "pooling=avg,max"),
    "optimizer": (
        "kingfisher",
        "cafe_terrace_at_night",
        *GRAM,
        *("--vary", "optimizer=lbfgs,cg,adam", "--steps", "1000", "--evaluations", "150"),
        *("--plot", "curves.png"),
    ),
    "init": (
        "owl",
        "great_wave",
        *GRAM,
        *("--vary", "init=photo,noise,painting"),
    ),
    "content-layer": (
        "neuschwanstein",
        "church_at_auvers",
        *GRAM,
        *("--vary", "content-layer=relu2_2,relu3_2,relu4_2,relu5_2"),
    ),
    "style-loss": (
        "kingfisher",
        "cafe_terrace_at_night",
        "--vary",
        "style-loss=gram,mmd-linear,mmd-poly,mmd-gaussian,bn,covariance,wasserstein",
    ),
    "encoder": (
        "kingfisher",
        "great_wave",
        *GRAM,
        *("--size", "384", "--vary", "encoder=vgg16,efficientnet-lite0"),
    ),
    "encoder-looks": (
        "kingfisher",
        "great_wave",
        *GRAM,
        *("--encoder", "efficientnet-lite0"),
        *("--vary", "shifts=1,2", "--vary", "smoothing=none,1"),
    ),
    **{
        f"method-{pair}": (
            *pair.split("-"),
            *("--size", "384", "--vary", "style-loss=gram,wasserstein,neighbors"),
        )
        for pair in METHODS
    },
}


def answer(question: str) -> None:
    photo, painting, *options = QUESTIONS[question]
    sheet = FOLDER / f"{question}.png"
    curves = FOLDER / f"{question}-curves.png"
    options = [str(curves) if option == "curves.png" else option for option in options]
    inputs = [str(sample(photo)), "--style", str(sample(painting))]
    code = impasto(["compare", *inputs, *options, "-o", str(sheet), "--force"])
    if code:
        raise SystemExit(code)
    for page in (sheet, curves):
        if page.exists():
            with Image.open(page) as image:
                size = images.fitted_size(image.size, min(WIDEST, max(image.size)))
                small = images.resize(image.convert("RGB"), size)
            small.save(page.with_suffix(".jpg"), quality=85, optimize=True, progressive=True)
            page.unlink()


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for question in sys.argv[1:] or QUESTIONS:
        answer(question)


if __name__ == "__main__":
    main()
