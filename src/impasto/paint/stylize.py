"""Stylise: repaint photos after paintings."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from impasto import catalog
from impasto.device import ordinary
from impasto.errors import ImpastoError
from impasto.losses.base import Loss
from impasto.optimise.base import Callback
from impasto.paint import checkpoints
from impasto.paint.artworks import Artwork
from impasto.paint.checkpoints import Checkpoint, Keeper
from impasto.paint.levels import PLACES, STROKES, plan_levels
from impasto.paint.neighboring import Neighboring, matched_layers
from impasto.paint.regions import Regions, Sources, read_places
from impasto.paint.repainting import Repainting
from impasto.paint.run import Painting, finish
from impasto.paint.studio import Studio
from impasto.pictures import images
from impasto.pictures.images import PathLike, Picture, Source
from impasto.settings import CHECKPOINT_EVERY, FULL, STARTS, Settings, choose


def stylize(
    photo: Source,
    painting: Sources | None = None,
    *,
    regions: Regions = (),
    preset: str | None = None,
    settings: Settings | None = None,
    callback: Callback | None = None,
    **choices: Any,
) -> Artwork:
    """Repaint a photo in the manner of a painting.

    By neighbours (Kolkin et al. 2022, arXiv:2203.13215), or with another `style_loss` by statistics
    such as Gram matrices (Gatys, Ecker & Bethge 2015, arXiv:1508.06576).

    Args:
        photo: a picture file or a PIL image.
        painting: the same; or several, `["a.jpg", ("b.jpg", 0.3)]` or `{"a.jpg": 1, "b.jpg": 0.3}`,
            whose styles are mixed in proportion to these numbers. Transparent parts do not count.
        regions: (mask, painting) pairs, or a mapping: where a mask is white, the photo takes its
            style from that painting (Gatys et al. 2017, arXiv:1611.07865). Masks may be soft, and
            are resized to the photo. Areas that no mask covers are painted after `painting`; if
            there is none, they stay the photo.
        preset: `"gatys"` or `"lecture"` for published settings; None for impasto's own.
        settings: the settings to begin with, instead of the defaults; not with a preset.
        callback: called with every `Step`, the start (step 0) included.
        **choices: single settings by name, see `Settings`.

    Raises:
        ImpastoError: a file or setting is wrong; the text says which and how to mend it.
        Interrupted: Ctrl-C was pressed; it carries the picture so far.
    """
    stylizer = Stylizer(painting, regions=regions, preset=preset, settings=settings, **choices)
    return stylizer.paint(photo, callback=callback)


@ordinary()
def start_again(checkpoint: PathLike, *, checkpoint_every: float = CHECKPOINT_EVERY) -> Painting:
    """Continue a run from its checkpoint; iterating over the result paints, step by step.

    Raises:
        ImpastoError: the checkpoint is missing or damaged, or an input file is gone or has changed.
    """
    saved = checkpoints.read(checkpoint)
    files = checkpoints.located(checkpoint, saved.record)
    with checkpoints.of_this_version(checkpoint):
        settings = dict(saved.settings)
        settings |= {name: files[name] for name in ("init", "weights") if name in files}
        paintings = [(files[role], share) for role, share in saved.paintings]
        regions = [(files[mask], files[painting]) for mask, painting in saved.regions]
        photo = files["photo"]
    stylizer = Stylizer(paintings or None, regions=regions, **settings)
    painting = stylizer.start(
        photo, checkpoint=checkpoint, checkpoint_every=checkpoint_every, note=saved.note
    )
    return painting.go_on_from(saved)


def resume(
    checkpoint: PathLike,
    *,
    callback: Callback | None = None,
    checkpoint_every: float = CHECKPOINT_EVERY,
) -> Artwork:
    """Continue a run to its end, see `start_again`; `callback` is called with every `Step`.

    Raises:
        Interrupted: Ctrl-C was pressed; it carries the picture so far.
    """
    return finish(start_again(checkpoint, checkpoint_every=checkpoint_every), callback)


class Stylizer:
    """Paints any number of photos after the same painting or paintings.

    Arguments and errors are those of `stylize`. Statistics of paintings are computed once for each
    size, unless the photo's colours are kept. Neighbours are found for every photo anew.
    """

    @ordinary()
    def __init__(
        self,
        painting: Sources | None = None,
        *,
        regions: Regions = (),
        preset: str | None = None,
        settings: Settings | None = None,
        **choices: Any,
    ) -> None:
        self.settings = choose(Settings, settings, choices, preset)
        self.places = read_places(painting, regions)
        init = self.settings.init
        self.begins_with = None if init in STARTS else images.read_visible(init)
        self.studio = Studio(self.settings)
        encoder = self.studio.encoder
        self.content_layer = encoder.layer(self.settings.content_layer or encoder.content_layer)
        self.style_shares = encoder.shares(self.settings.style_layers)
        self.by_neighbors = catalog.STYLES[self.settings.style_loss].needs_photo
        if self.by_neighbors and self.settings.style_layers is None:
            self.style_shares = matched_layers(encoder)
        self.by_neighbors &= self.settings.strength > 0  # at 0 there is only the photo
        if self.by_neighbors:
            self.studio.read(self.style_shares)
            self.studio.match(self.style_shares)
        else:
            self.studio.read(self.style_shares, targets=[self.content_layer])
        self.kept_losses: dict[tuple[str, int], Sequence[Loss]] = {}
        if self.settings.size != FULL:
            self._paintings_at(int(self.settings.size))  # finds a painting that is too small

    def paint(
        self,
        photo: Source,
        *,
        callback: Callback | None = None,
        checkpoint: PathLike | None = None,
        checkpoint_every: float = CHECKPOINT_EVERY,
        note: Mapping[str, Any] | None = None,
    ) -> Artwork:
        """Repaint one photo to the end; see `start` and `stylize`."""
        painting = self.start(
            photo, checkpoint=checkpoint, checkpoint_every=checkpoint_every, note=note
        )
        return finish(painting, callback)

    @ordinary()
    def start(
        self,
        photo: Source,
        *,
        checkpoint: PathLike | None = None,
        checkpoint_every: float = CHECKPOINT_EVERY,
        note: Mapping[str, Any] | None = None,
    ) -> Painting:
        """Begin to repaint one photo; iterating over the result paints, step by step.

        Args:
            photo: a picture file or a PIL image.
            checkpoint: a file to save the run in, so that `resume` can continue it; all inputs have
                to be files then. `Artwork.save` removes it once the run is over.
            checkpoint_every: seconds from one checkpoint to the next.
            note: anything else to write into the checkpoint.
        """
        settings, picture = self.settings, images.read_visible(photo)
        inputs = self.inputs(picture)
        keeper = None
        if checkpoint is not None:
            for source in inputs.values():
                if not Path(source.name).is_file():
                    raise ImpastoError(
                        f"a checkpoint needs inputs that are files, and {source.name} is none; "
                        "save it first"
                    )
            begun = self._begun(picture, checkpoint, note or {})
            keeper = Keeper(Path(checkpoint), begun, checkpoint_every)
        size = self.studio.result_size(picture, settings.size)
        paintings = self._paintings_at(max(size))
        pyramid = PLACES if self.by_neighbors else STROKES
        levels = plan_levels(size, settings.steps, settings.levels, self._is_possible, pyramid)
        kind = Neighboring if self.by_neighbors else Repainting
        problem = kind(self, picture, levels)
        shown = 12 if settings.margin else 0  # a copy without the margin
        if problem.grey or not problem.is_everywhere or len(self.places) > 1:
            shown += 24 + 8 * len(self.places)  # in colour; masks and their areas
        problem.studio.make_room(
            size,
            inputs.values(),
            channels=1 if problem.grey else 3,
            paintings=paintings,
            margin=problem.margin(levels[-1]),
            shown=shown,
        )
        return Painting(problem, keeper)

    def is_kept_in(self, checkpoint: PathLike, photo: Source) -> bool:
        """Whether a checkpoint is of this photo, painted as this stylizer would paint it.

        Raises:
            ImpastoError: the photo or the checkpoint can't be read.
        """
        own = self._begun(images.read_visible(photo), checkpoint, {}).record
        return checkpoints.essence(own) == checkpoints.essence(checkpoints.read_record(checkpoint))

    def painting_size(self, painting: Picture, longer: int) -> tuple[int, int]:
        """The size at which a painting is measured if the result's longer side is `longer`."""
        scaled = max(1, round(longer * self.settings.style_scale))
        size = images.fitted_size(painting.image.size, scaled)
        self.studio.check_size(painting.name, size, list(self.style_shares))
        return size

    def inputs(self, photo: Picture) -> dict[str, Picture]:
        """Every picture that a run reads, by role."""
        inputs = {"photo": photo}
        for place in self.places:
            inputs |= place.inputs
        return inputs | ({"init": self.begins_with} if self.begins_with else {})

    def record(self, photo: Picture, size: tuple[int, int]) -> dict[str, Any]:
        """What is known of a picture before it is painted."""
        settings: dict[str, Any] = {
            "content_layer": None if self.by_neighbors else self.content_layer,
            "style_layers": self.style_shares,
            "style_weight": self.settings.total_style_weight,
            "keep_colors": self.settings.kept_colours,
        }
        if self.begins_with:
            settings["init"] = Path(self.begins_with.name).name
        record = self.studio.record("stylize", size, self.inputs(photo), **settings)
        shares = [share for _, share in self.places[0].paintings]
        return record | ({"shares": shares} if len(shares) > 1 else {})

    def _paintings_at(self, longer: int) -> list[tuple[str, tuple[int, int]]]:
        paintings = [painting for place in self.places for painting, _ in place.paintings]
        return [(painting.name, self.painting_size(painting, longer)) for painting in paintings]

    def _is_possible(self, size: tuple[int, int]) -> bool:
        """Whether photo and paintings are large enough for all layers at this size."""
        try:
            self.studio.check_size("", size, self.studio.layers)
            self._paintings_at(max(size))
        except ImpastoError:
            return False
        return True

    def _begun(self, photo: Picture, path: PathLike, note: Mapping[str, Any]) -> Checkpoint:
        """The checkpoint at `path` of a run before its first step."""
        folder = Path(os.path.realpath(path)).parent
        files = {role: (p.name, p.sha256) for role, p in self.inputs(photo).items()}
        if self.studio.weights_sha256:
            files["weights"] = str(self.settings.weights), self.studio.weights_sha256
        inputs = {role: checkpoints.input_of(*given, folder) for role, given in files.items()}
        settings = dataclasses.asdict(self.settings)
        settings |= {name: inputs[name]["path"] for name in ("init", "weights") if name in inputs}
        paintings: list[tuple[str, float]] = []
        regions: list[tuple[str, str]] = []
        for place in self.places:
            if place.mask is None:
                shares = [share for _, share in place.paintings]
                paintings = list(zip(place.inputs, shares, strict=True))
            else:
                painting, mask = place.inputs
                regions.append((mask, painting))
        return Checkpoint(settings, inputs, paintings, regions, dict(note))
