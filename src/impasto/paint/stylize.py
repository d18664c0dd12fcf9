"""Stylise: repaint photos after paintings."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from impasto.device import ordinary
from impasto.errors import ImpastoError
from impasto.losses.styles import StyleLoss
from impasto.optimise.base import Callback
from impasto.paint import checkpoints
from impasto.paint.artworks import Artwork
from impasto.paint.checkpoints import Checkpoint, Keeper
from impasto.paint.levels import plan_levels
from impasto.paint.regions import Regions, Sources, read_places
from impasto.paint.repainting import Repainting
from impasto.paint.run import Painting, finish
from impasto.paint.studio import Studio, named
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
    """Repaint a photo in the manner of a painting (Gatys, Ecker & Bethge 2015, arXiv:1508.06576).

    Args:
        photo: a picture file or a PIL image.
        painting: likewise; or several, `["a.jpg", ("b.jpg", 0.3)]` or `{"a.jpg": 1, "b.jpg": 0.3}`,
            whose styles are mixed in proportion to what each counts. What is transparent in one
            does not enter its style.
        regions: (mask, painting) pairs, or a mapping: where a mask is white, the photo takes its
            style from that painting (Gatys et al. 2017, arXiv:1611.07865). Masks may be soft, and
            are resized to the photo. What no mask covers keeps to `painting`, or stays the photo
            where there is none.
        preset: `"gatys"` or `"lecture"` for published settings; none for impasto's own.
        settings: how to paint, where that was put together before.
        callback: called with every `Step`, the start (step 0) included.
        **choices: single settings, see `Settings`.

    Raises:
        ImpastoError: a file or setting is wrong; the text says which and how to mend it.
        Interrupted: Ctrl-C; it carries the picture as it is.
    """
    stylizer = Stylizer(painting, regions=regions, preset=preset, settings=settings, **choices)
    return stylizer.paint(photo, callback=callback)


@ordinary()
def start_again(checkpoint: PathLike, *, checkpoint_every: float = CHECKPOINT_EVERY) -> Painting:
    """Go on with a run from the checkpoint that it left: whoever iterates paints.

    Raises:
        ImpastoError: the checkpoint is missing or damaged, or a picture that it was begun with is
            gone or has changed.
    """
    saved = checkpoints.read(checkpoint)
    files = checkpoints.located(checkpoint, saved.record)
    with checkpoints.of_this_version(checkpoint):
        settings = {**saved.settings}
        settings |= {name: files[name] for name in ("init", "weights") if name in files}
        paintings = [(files[role], share) for role, share in saved.paintings]
        regions = [(files[mask], files[painting]) for mask, painting in saved.regions]
        photo = files["photo"]
    stylizer = Stylizer(paintings or None, regions=regions, **settings)
    keeper = Keeper(Path(checkpoint), checkpoint_every)
    return stylizer._start(images.read(photo), keeper, saved.note, saved)


def resume(
    checkpoint: PathLike,
    *,
    callback: Callback | None = None,
    checkpoint_every: float = CHECKPOINT_EVERY,
) -> Artwork:
    """Go on with a run from the checkpoint that it left, to its end; see `start_again`.

    `callback` is called with every `Step`.

    Raises:
        Interrupted: Ctrl-C; it carries the picture as it is.
    """
    return finish(start_again(checkpoint, checkpoint_every=checkpoint_every), callback)


class Stylizer:
    """Paints any number of photos after one painting, or several.

    The paintings' targets are computed once for each size. Arguments and errors are those of
    `stylize`.
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
        self.studio.read(self.style_shares, targets=[self.content_layer])
        self.kept_losses: dict[tuple[str, int], Sequence[StyleLoss]] = {}
        if self.settings.size != FULL:
            self._check_paintings(int(self.settings.size))  # too small a one is known at once

    def paint(
        self,
        photo: Source,
        *,
        callback: Callback | None = None,
        checkpoint: PathLike | None = None,
        checkpoint_every: float = CHECKPOINT_EVERY,
        note: Mapping[str, Any] | None = None,
    ) -> Artwork:
        """Repaint one photo, to the end; see `start` and `stylize`."""
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
        """Begin to repaint one photo: whoever iterates paints, step by step.

        Args:
            photo: a picture file or a PIL image.
            checkpoint: a file to keep the run in, from which `resume` goes on if it breaks off;
                `Artwork.save` removes it. All inputs have to be files, then.
            checkpoint_every: seconds from one checkpoint to the next.
            note: what else to write into the checkpoint.
        """
        picture = images.read_visible(photo)
        keeper = None
        if checkpoint is not None:
            for source in self._inputs(picture).values():
                if not Path(source.name).is_file():
                    raise ImpastoError(
                        f"a checkpoint needs inputs that are files, and {source.name} is none; "
                        "save it first"
                    )
            keeper = Keeper(Path(checkpoint), checkpoint_every)
        return self._start(picture, keeper, dict(note or {}), None)

    def _start(
        self,
        picture: Picture,
        keeper: Keeper | None,
        note: Mapping[str, Any],
        saved: Checkpoint | None,
    ) -> Painting:
        settings = self.settings
        size = self.studio.result_size(picture, settings.size)
        self._check_paintings(max(size))
        inputs = self._inputs(picture).values()
        self.studio.pictures = sum(math.prod(source.image.size) for source in inputs)
        paintings = [
            (painting.name, self.painting_size(painting, max(size)))
            for place in self.places
            for painting, _ in place.paintings
        ]
        channels = 1 if settings.kept_colours == "luminance" else 3
        self.studio.shown = 12 if settings.margin else 0  # without the margin
        if channels == 1 or self.places[0].mask is not None or len(self.places) > 1:
            self.studio.shown += 24 + 8 * len(self.places)  # in colour; masks and their areas
        levels = plan_levels(size, settings.steps, settings.levels, self._is_possible)
        problem = Repainting(self, picture, levels)
        self.studio.tell_of_memory(size, channels, paintings, problem.margin(levels[-1]))
        return Painting(
            problem,
            levels,
            picture.name,
            self._record(picture, size),
            evaluations=settings.evaluations,
            restart=settings.restart,
            keeper=keeper,
            begun=self._begun(picture, keeper.path, note) if keeper else None,
            saved=saved,
        )

    def is_kept_in(self, checkpoint: PathLike, photo: Source) -> bool:
        """Whether a checkpoint is of this photo, painted as this stylizer would.

        Raises:
            ImpastoError: the photo can't be read, or the checkpoint.
        """
        own = self._begun(images.read_visible(photo), checkpoint, {})
        return own.is_same_run(checkpoints.read_record(checkpoint))

    def painting_size(self, painting: Picture, longer: int) -> tuple[int, int]:
        scaled = max(1, round(longer * self.settings.style_scale))
        size = images.fitted_size(painting.image.size, scaled)
        self.studio.check_size(painting.name, size, list(self.style_shares))
        return size

    def _check_paintings(self, longer: int) -> None:
        for place in self.places:
            for painting, _ in place.paintings:
                self.painting_size(painting, longer)

    def _is_possible(self, size: tuple[int, int]) -> bool:
        """Whether photo and paintings are large enough for all layers at this size."""
        try:
            self.studio.check_size("", size, self.studio.layers)
            self._check_paintings(max(size))
        except ImpastoError:
            return False
        return True

    def _record(self, photo: Picture, size: tuple[int, int]) -> dict[str, Any]:
        settings: dict[str, Any] = {
            "content_layer": self.content_layer,
            "style_layers": self.style_shares,
            "style_weight": self.settings.total_style_weight,
            "keep_colors": self.settings.kept_colours,
        }
        if self.begins_with:
            settings["init"] = Path(self.begins_with.name).name
        record = self.studio.record("stylize", size, **settings)
        record |= {role: named(picture) for role, picture in self._inputs(photo).items()}
        if self.places[0].mask is None and len(self.places[0].paintings) > 1:
            record["shares"] = [share for _, share in self.places[0].paintings]
        return record

    def _inputs(self, photo: Picture) -> dict[str, Picture]:
        """Every picture that went in, by role."""
        inputs = {"photo": photo}
        for place in self.places:
            inputs |= place.inputs
        return inputs | ({"init": self.begins_with} if self.begins_with else {})

    def _begun(self, photo: Picture, path: PathLike, note: Mapping[str, Any]) -> Checkpoint:
        """The checkpoint, kept at `path`, of a run that has not begun yet."""
        folder = Path(os.path.realpath(path)).parent
        files = {role: (p.name, p.sha256) for role, p in self._inputs(photo).items()}
        if self.settings.weights is not None and self.studio.weights_file:
            files["weights"] = str(self.settings.weights), self.studio.weights_file["sha256"]
        inputs = {role: checkpoints.input_of(*given, folder) for role, given in files.items()}
        settings = dataclasses.asdict(self.settings)
        settings |= {name: inputs[name]["path"] for name in ("init", "weights") if name in inputs}
        everywhere = [place for place in self.places if place.mask is None]
        return Checkpoint(
            settings,
            inputs,
            [
                (place.role(number), share)
                for place in everywhere
                for number, (_, share) in enumerate(place.paintings, 1)
            ],
            [(place.mask_role, place.role(1)) for place in self.places if place.mask],
            note,
        )
