"""The commands of generators, which make pictures from noise: generate, imagine.

`impasto imagine` imports no torch, unless it makes a film.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from impasto import __version__
from impasto.apps.cli import texts
from impasto.apps.cli.commands import Seconds, app
from impasto.apps.cli.console import interruptions, say
from impasto.apps.cli.learning import free, trained
from impasto.apps.cli.making import INTERRUPTED, Count, NetworkOutput, Output
from impasto.apps.cli.one_pass import NETWORK, TRAINING_EVERY, Paintings, Shares
from impasto.apps.cli.options import File, converted, settings_of
from impasto.apps.cli.series import kept_beside, stem_of
from impasto.errors import ImpastoError
from impasto.pictures.files import STANDARD
from impasto.settings import GenerateSettings, ImagineSettings, choose

if TYPE_CHECKING:
    from impasto.networks.generator import Generator

MOST = 10_000
"""The most pictures that one command makes."""

FRAMES = 96
"""The pictures of a walk from one seed to another."""

Seed = Annotated[int, converted(lambda given: texts.number(int, given[-1]), metavar="SEED")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ImagineOutput(Output):
    """Where pictures go.

    Args:
        film: instead of pictures, save a film of a walk from --seed to the seed --to, an .mp4 or
            .gif file.
    """

    film: File | None = None


PICTURES = ImagineOutput()


@app.command
@settings_of(GenerateSettings)
def generate(
    *paintings: Paintings,
    out: NetworkOutput = NETWORK,
    checkpoint_every: Seconds = TRAINING_EVERY,
    **choices: Any,
) -> int:
    """Train a generator that makes pictures of the kind of these paintings, from noise.

    Beside it lie its losses (.csv) and their curves, and a contact sheet and a
    film of what it makes of one noise as it learns. Ctrl-C saves what has been
    learned, and impasto resume goes on. impasto imagine then makes pictures of
    any size.

    Args:
        paintings: the paintings; a style is called by the name of its file.
        checkpoint_every: how often to save a checkpoint beside the output, for impasto resume.
    """
    from impasto.networks.generate import start

    if STANDARD in paintings:
        raise ImpastoError("a training reads its paintings again when it is resumed; give files")
    first = Path(out.output or f"{'-'.join(map(stem_of, paintings))}-generator.safetensors")
    inputs = [*paintings, choices.get("weights")]
    target = free(first, [str(each) for each in inputs if each], out)
    course = start(
        list(paintings),
        checkpoint=kept_beside(target),
        checkpoint_every=checkpoint_every,
        note={"output": target.name},
        **choices,
    )
    return trained(course, target, out)


@app.command
@settings_of(ImagineSettings)
def imagine(
    generator: str,
    /,
    *,
    style: Shares = (),
    count: Count = 1,
    to: Seed | None = None,
    out: ImagineOutput = PICTURES,
    **choices: Any,
) -> int:
    """Make pictures of any size with a generator: from noise, in one pass.

    Args:
        generator: a generator by the name of its painting, or the .safetensors file of one that
            impasto generate has trained.
        style: a style of the generator. Several --style options mix styles by share (1 if not
            given).
        count: make so many pictures, with the seeds --seed, --seed + 1, ...
        to: the seed at which a --film ends.
    """
    from impasto.networks import files
    from impasto.networks.generator import Generator

    settings = choose(ImagineSettings, None, choices)
    if not isinstance(count, int) or not 1 <= count <= MOST:
        raise ImpastoError(f"count is {count}; give a whole number from 1 to {MOST}")
    choose(ImagineSettings, settings, {"seed": settings.seed + count - 1 if to is None else to})
    if (to is None) != (out.film is None):
        raise ImpastoError("a walk goes to another seed and becomes a film; give --to and --film")
    path = files.located(generator)
    ready = Generator.load(generator, device=settings.device, memory=settings.memory)
    shares = zip(ready.styles, ready.shares(style or None).tolist(), strict=True)
    chosen = {name: share for name, share in shares if share}
    ready.check(settings.size, settings.tileable, is_film=to is not None)
    if to is not None:
        if count > 1 or out.output:
            raise ImpastoError("a walk makes a film and no pictures; leave --count and -o out")
        return _walk(ready, chosen, settings, to, out)
    named = "-".join(name for name, _ in style) or stem_of(generator)
    names = [f"{named}-imagined-{settings.seed + n}" for n in range(count)]
    targets = out.placed([f"{name}.{out.format or 'png'}" for name in names])
    out.check(targets, [str(path)])
    return _pictures(ready, path, chosen, settings, targets, out)


def _pictures(
    ready: Generator,
    path: Path,
    styles: dict[str, float],
    settings: ImagineSettings,
    targets: list[Path],
    out: ImagineOutput,
) -> int:
    """Make pictures one after another and save each at once; returns the exit code."""
    import onnxruntime

    from impasto.pictures import images
    from impasto.pictures.files import sha256_of

    about = {
        "impasto": __version__,
        "command": "imagine",
        "network": {"name": path.name, "sha256": sha256_of(path)},
        "styles": styles,
        "onnxruntime": onnxruntime.__version__,
    }
    told: list[dict[str, Any]] = []
    try:
        for number, target in enumerate(targets):
            seed, began = settings.seed + number, time.monotonic()
            made = {"size": list(settings.size), "seed": seed, "tileable": settings.tileable}
            image = ready(settings.size, styles, seed=seed, tileable=settings.tileable)
            seconds = time.monotonic() - began
            with interruptions.get().held():
                record = {**about, "device": ready.device, "settings": made}
                written = images.write(
                    image, target, record=record, force=out.force, format=out.format
                )
                width, height = image.size
                called = "standard output" if out.is_standard else written
                out.tell(f"{called}  ({width} x {height} pixels, {seconds:.2f} s)")
                told.append({"output": str(written), **made, "seconds": round(seconds, 3)})
            interruptions.get().check()
    except KeyboardInterrupt:
        if not told:
            raise
        say("impasto: interrupted; what was made before is kept")
    code = out.finish(*told)
    return code if len(told) == len(targets) else INTERRUPTED


def _walk(
    ready: Generator,
    style: dict[str, float],
    settings: ImagineSettings,
    to: int,
    out: ImagineOutput,
) -> int:
    """Film a walk from one seed to another; returns the exit code."""
    from impasto.optimise.base import Step
    from impasto.pictures import images
    from impasto.pictures.films import Film

    assert out.film
    walk = ready.walk(
        settings.size, style, seeds=(settings.seed, to), frames=FRAMES, tileable=settings.tileable
    )
    frames, watch = 0, interruptions.get()
    # Ctrl-C waits for a frame, so that the film becomes whole.
    with watch.held(), Film(out.film, FRAMES - 1, force=out.force) as film:
        for image in walk:
            film.add(Step(frames, 0, 0.0, {}, images.to_tensor(image)))
            frames += 1
            if watch.asked:
                break
    out.tell(f"{film.written}  (from seed {settings.seed} to {to}, {frames} pictures)")
    if frames < FRAMES:
        say("impasto: interrupted; the film ends where it was")
    about = {"size": list(settings.size), "seeds": [settings.seed, to], "frames": frames}
    stopped = "finished" if frames == FRAMES else "interrupted"
    return out.finish({"film": str(film.written), **about, "stopped": stopped})
