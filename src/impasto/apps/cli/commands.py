"""The commands, their arguments and their help.

Modules that load torch are imported inside the functions: `impasto --help` must not wait for it.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from impasto import __version__, catalog
from impasto.apps.cli import series, texts
from impasto.apps.cli.console import print_out
from impasto.apps.cli.making import Output, PictureOutput, free_names
from impasto.apps.cli.options import File, Help, converted, settings_of, several, varied
from impasto.apps.cli.series import kept_beside, name_of, stem_of
from impasto.errors import ImpastoError
from impasto.pictures.files import STANDARD, check_folder
from impasto.settings import (
    CHECKPOINT_EVERY,
    AtlasSettings,
    CompareSettings,
    ReconstructSettings,
    Settings,
    TextureSettings,
)

PAGE, PICTURE = Output(), PictureOutput()

app = App(
    name="impasto",
    help="Repaint a photograph in the manner of a painting, and see how that works.\n\n"
    "Try: impasto stylize $(impasto samples kingfisher) --style $(impasto samples great_wave)",
    help_format="plaintext",
    help_formatter=Help(),
    version=f"impasto {__version__}",
    default_parameter=Parameter(negative=(), allow_repeating=True, show_default=False),
    exit_on_error=False,
    print_error=False,
)
app.register_install_completion_command(help="Teach your shell to complete commands and options.")

Photos = Annotated[File, Parameter(required=True)]
Paintings = Annotated[
    tuple[tuple[File, float], ...], several(texts.weighted, metavar="PAINTING[:WEIGHT]")
]
Regions = Annotated[tuple[tuple[File, File], ...], several(texts.region, metavar="MASK:PAINTING")]
Variations = Annotated[
    tuple[tuple[str, list[str]], ...], several(texts.variation, metavar="OPTION=A,B,...")
]
Weights = Annotated[tuple[float, ...], converted(texts.numbers, metavar=texts.NUMBERS)]
Seconds = Annotated[
    float,
    converted(
        lambda given: texts.numbers(given)[-1], metavar="SECONDS", show_default="{:g}".format
    ),
]


@app.command(sort_key=0)
@settings_of(Settings)
def stylize(
    *photos: Photos,
    style: Paintings = (),
    region: Regions = (),
    out: PictureOutput = PICTURE,
    skip_existing: bool = False,
    checkpoint_every: Seconds = CHECKPOINT_EVERY,
    **choices: Any,
) -> int:
    """Repaint photos in the manner of a painting, or of several.

    Args:
        photos: the photos, painted one after another; - reads one from standard input.
        style: the painting. Several --style options mix paintings by weight (1 if not given).
        region: where the picture MASK is white, use this painting instead; any number of times.
            Without --style, the rest of the photo stays as it is.
        skip_existing: skip photos whose output is finished, and resume those with a checkpoint.
        checkpoint_every: how often to save a checkpoint beside the output, for impasto resume.
    """
    from impasto.paint.stylize import Stylizer

    if skip_existing and out.force:
        raise ImpastoError("--skip-existing keeps what is there, --force replaces it; give one")
    paintings = [name for name, _ in style] or [name for _, name in region]
    stems = ["-".join(map(stem_of, [photo, *paintings])) for photo in photos]
    targets = out.placed(free_names(stems, out))
    if out.film and len(targets) > 1:
        raise ImpastoError("a film shows a single picture; give one photo, or no --film")
    stylizer = Stylizer(style, regions=region, **choices)
    inputs = _inputs(choices, style, region)
    out.check(targets, [*photos, *inputs], out.film)

    paint = partial(
        series.paint_or_go_on,
        stylizer,
        skip_existing=skip_existing and not out.is_standard,
        every=checkpoint_every,
        resumable=not out.is_standard and STANDARD not in inputs,
    )
    return series.one_after_another(photos, targets, paint, out)


@app.command
@settings_of(ReconstructSettings, layers="layer")
def reconstruct(
    *photos: Photos, weight: Weights = (), out: PictureOutput = PICTURE, **choices: Any
) -> int:
    """Show what a layer keeps of a photo.

    Starts from noise and finds a picture with the same activations in this layer.

    Args:
        photos: one photo; for several, the mean of their activations is used.
        weight: how much each photo counts in the mean, in the order of the photos.
    """
    from impasto.encoders.base import load_encoder
    from impasto.paint.reconstruct import start

    encoder = load_encoder(choices.get("weights"), name=choices.get("encoder"))
    layers = choices.get("layers") or encoder.content_layer
    parts = [layers] if isinstance(layers, str) else layers
    name = "-".join([*map(stem_of, photos), *(part.replace(":", "-") for part in parts)])
    target = _placed(name, out, [*photos, *_inputs(choices)], out.film)
    painting = start(list(photos), weights_of_photos=weight or None, **choices)
    return out.made(painting, ", ".join(map(name_of, photos)), target)


@app.command
@settings_of(TextureSettings)
def texture(painting: File, /, *, out: PictureOutput = PICTURE, **choices: Any) -> int:
    """Grow a texture from a painting.

    Starts from noise and makes a picture that has the painting's style and nothing else of it.

    Args:
        painting: a painting, or any other picture.
    """
    from impasto.paint.texture import start

    inputs = [painting, *_inputs(choices)]
    target = _placed(f"{stem_of(painting)}-texture", out, inputs, out.film)
    return out.made(start(painting, **choices), name_of(painting), target)


@app.command
@settings_of(AtlasSettings)
def atlas(
    photo: File,
    painting: File | None = None,
    /,
    *,
    channels: str | None = None,
    out: Output = PAGE,
    **choices: Any,
) -> int:
    """Show what every layer keeps, on one page.

    The page shows the photo reconstructed from each style layer, and textures of the painting from
    the first style layer, from the first two, and so on.

    Args:
        painting: not needed with --channels.
        channels: instead of this page, show what the most active channels of a layer look at.
    """
    from impasto import api

    name = f"{stem_of(photo)}-{channels or stem_of(painting or '') + '-atlas'}"
    target = _placed(name, out, [photo, painting or photo, *_inputs(choices)])
    if channels:
        sheet = api.channels(photo, channels, **choices)
    elif painting:
        sheet = out.sheet(partial(api.atlas, photo, painting, **choices))
    else:
        raise ImpastoError("an atlas needs a photo and a painting; give both, or --channels LAYER")
    return out.save_sheet(sheet, [partial(sheet.save, target, format=out.format)])


@app.command
@settings_of(CompareSettings)
def compare(
    photo: File,
    /,
    *,
    vary: Variations,
    style: Paintings = (),
    region: Regions = (),
    out: Output = PAGE,
    csv: File | None = None,
    plot: File | None = None,
    **choices: Any,
) -> int:
    """Paint a photo with several values of an option, side by side.

    Makes a labelled page of all combinations of one or two options, and a table of the losses.

    Args:
        vary: an option of stylize (without --) and its values; give it once or twice. + joins
            several names to one value, as in style-layer=relu1_1+relu2_1,relu4_1; the value none
            leaves the option out.
        style: the painting. Several --style options mix paintings by weight (1 if not given).
        region: where the picture MASK is white, use this painting instead.
        csv: the file for the table (default: beside the page).
        plot: draw the curves of the loss to this file, a .png or another picture.
    """
    from impasto import api
    from impasto.pictures.images import check_writable

    values = varied(vary)
    parts = [part for _, given in vary for text in given for part in texts.parted(text)]
    name = "-".join([stem_of(photo), "by", *(option for option, _ in vary)])
    (target,) = out.placed([f"{name}.{out.format or 'png'}"])
    table = Path(csv) if csv else None if out.is_standard else target.with_suffix(".csv")
    if table:
        check_folder(table)
        if table.suffix.lower() != ".csv":
            raise ImpastoError(f"{table} is no name for a table; end it with .csv")
    if plot:
        check_writable(plot)
    inputs = [photo, *_inputs(choices, style, region), *(texts.weighted(p)[0] for p in parts)]
    out.check([target], inputs, table, plot)
    sheet = out.sheet(partial(api.compare, photo, style, regions=region, vary=values, **choices))
    assert isinstance(sheet, api.Comparison)
    saves = [partial(sheet.save, target, format=out.format)]
    saves += [partial(sheet.save_table, table)] if table else []
    saves += [partial(sheet.save_curves, plot)] if plot else []
    return out.save_sheet(sheet, saves)


@app.command
def resume(
    file: File,
    /,
    *,
    out: PictureOutput = PICTURE,
    checkpoint_every: Seconds = CHECKPOINT_EVERY,
) -> int:
    """Go on with a painting, or with the training of a network, that was interrupted.

    Without --output, the picture is saved beside the checkpoint under its original
    name; a network always is.

    Args:
        file: the .checkpoint file that the run left, or the picture that it belongs to.
        checkpoint_every: how often to save the checkpoint.
    """
    from impasto.paint.checkpoints import SUFFIX, read_record
    from impasto.pictures.images import FORMATS

    path = Path(file)
    if not path.name:
        raise ImpastoError(f"{path} is a folder; give a checkpoint in it, or a picture's name")
    if path.suffix != SUFFIX and os.path.exists(kept_beside(path)):  # noqa: PTH110
        path = kept_beside(path)  # the name of the picture will do
    record = read_record(path)
    if record.get("kind"):  # a training of some kind; a picture's checkpoint has none
        from impasto.apps.cli.learning import train_again

        if out.film or out.stills:
            raise ImpastoError("a training makes its own previews; leave --film and --stills out")

        return train_again(path, checkpoint_every, out)
    note = record.get("note") or {}
    name = Path(str(note.get("output") or path.name.removesuffix(SUFFIX))).name
    if Path(name).suffix.lower() not in FORMATS:
        name = f"{name}.{out.format or 'png'}"
    (target,) = out.placed([name]) if out.output else [path.with_name(name)]
    out = replace(out, force=out.force or bool(note.get("force")))
    return out.finish(series.go_on(path, target, None, checkpoint_every, out))


@app.command
def show(file: File, /) -> None:
    """Print what impasto stored in a PNG (settings, inputs, losses), or in a network."""
    from impasto.networks import files
    from impasto.pictures.images import read_record

    if Path(file).suffix == files.SUFFIX or file in {**catalog.NETWORKS, **catalog.GENERATORS}:
        about = files.read(file).description
        for style in about["styles"]:
            del style["thumbnail"]
        print_out(json.dumps(about, ensure_ascii=False, indent=2))
        return
    record = read_record(file)
    losses = record.pop("losses", [])
    text = json.dumps(record, ensure_ascii=False, indent=2)
    if losses:
        text += f"\nlosses, step 0 to {len(losses) - 1}:\n"
        text += " ".join(f"{loss:.6g}" for loss in losses)
    print_out(text)


@app.command
def info(
    *,
    encoder: str | None = None,
    weights: File | None = None,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Print versions, device, memory, kernels, an encoder's layers and the networks' styles.

    The first call may have to compile the kernels, which takes some seconds.

    Args:
        encoder: the encoder whose layers are printed (default: that of the weights, or vgg16).
        weights: its weights, if they are not in the package.
        as_json: print one JSON object.
    """
    import onnxruntime
    import torch

    from impasto import device as machine
    from impasto.encoders.base import load_encoder
    from impasto.kernels import ops
    from impasto.networks.network import Network

    device, kernels = machine.choose_device("auto"), ops.status()
    chosen = load_encoder(weights, name=encoder)
    ours, among = chosen.compiled
    free = machine.free(device)
    facts = {
        "impasto": __version__,
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "torch": torch.__version__,
        "device": str(device),
        "threads": str(torch.get_num_threads()),
        "memory": f"{machine.SHARE * free / 1e9:.1f} GB may be used, of {free / 1e9:.1f} GB free",
        "kernels": f"{'compiled' if kernels.ready else 'plain'} ({kernels.reason})",
        "cache": str(kernels.cache or "none"),
        "encoders": ", ".join(f"{name} ({row.help})" for name, row in catalog.ENCODERS.items()),
        "encoder": f"{chosen.name}: {ours} of {among} convolutions on compiled kernels (on a CPU), "
        "the others on torch",
        "pooling": " or ".join(chosen.poolings) or "none to choose",
        "shifts": str(chosen.shifts),
        "layers": " ".join(chosen.layers),
        "content": chosen.content_layer,
        "style": " ".join(f"{layer}:{share:g}" for layer, share in chosen.style_layers.items()),
        "networks": "; ".join(
            f"{name}: {' '.join(Network.load(name).styles)}" for name in catalog.NETWORKS
        ),
        "imagine": " ".join(catalog.GENERATORS),
        "onnx": f"ONNX Runtime {onnxruntime.__version__} on {Network.load().device}",
    }
    lines = "\n".join(f"{name:<9} {fact}" for name, fact in facts.items())
    print_out(json.dumps(facts) if as_json else lines)


@app.command
def samples(name: str | None = None, /) -> None:
    """List the names of the sample pictures, or print the path of the one that you name."""
    from impasto.pictures.samples import sample, sample_names

    listed = "\n".join(f"{kind}: {' '.join(names)}" for kind, names in sample_names().items())
    print_out(str(sample(name)) if name else listed)


def _placed(name: str, out: Output, inputs: list[str], film: str | None = None) -> Path:
    """The checked output file of a command that makes one picture, by default called `name`."""
    (target,) = out.placed([f"{name}.{out.format or 'png'}"])
    out.check([target], inputs, film)
    return target


def _inputs(choices: dict[str, Any], style: Paintings = (), region: Regions = ()) -> list[str]:
    """All input files other than the photos."""
    others = filter(None, map(choices.get, ("init", "weights")))
    return [*(name for name, _ in style), *chain(*region), *others]
