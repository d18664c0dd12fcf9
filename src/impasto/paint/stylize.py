"""Stylise: repaint photos after paintings."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from impasto import __version__
from impasto.device import ordinary
from impasto.errors import ImpastoError
from impasto.losses.base import ContentLoss, Loss, StyleLoss, TotalVariationLoss
from impasto.losses.objective import Objective
from impasto.losses.styles import Statistic, Style
from impasto.optimise.base import Callback, Optimiser, Spectrum
from impasto.paint import checkpoints
from impasto.paint.artworks import Artwork, Kept, Saved, make
from impasto.paint.checkpoints import Keeper
from impasto.paint.levels import Level, plan_levels, refine
from impasto.paint.run import Painting, Scene
from impasto.paint.studio import LEAST_AREA, Exemplar, Paintings, Studio, canonical, named
from impasto.pictures import images
from impasto.pictures.files import is_file
from impasto.pictures.images import PathLike, Picture
from impasto.settings import FULL, STARTS, Settings, make_settings, plain

MIN_STYLE_DISTANCE = 0.05
"""A photo whose relative style loss is below this counts as being so far from the painting."""

BLUR, LEAST_BLUR = 1 / 80, 4.5
"""Painting begins with the photo blurred by so much of its longer side, and so many pixels.

Whichever is more; all of its shapes are left, and nothing of the size of strokes.
"""

PALETTE, LEAST_SPREAD = 256, 0.05
"""Painting begins in the colours that the painting has at so many pixels.

Colours of the photo that vary by less than the second, of 0..1, are taken to vary by as much.
"""

MARGIN, PIXELS_A_MARGIN = 8, 64
"""A margin has so many pixels, and one more for every so many of the picture's longer side.

The encoder's zeros around a picture are seen about ten pixels deep.
"""

SEEN = 512
"""The longer side up to which the content layer sees the shapes of a photo."""

Source = PathLike | Image.Image | Picture
Sources = Source | Sequence[Source | tuple[Source, float]] | Mapping[Source, float]
"""A painting, or several, each with how much it counts (1 where nothing is said)."""

Regions = Sequence[tuple[Source, Source]] | Mapping[Source, Source]
"""Masks, each with the painting that goes there."""


def stylize(
    photo: Source,
    painting: Sources | None = None,
    *,
    regions: Regions = (),
    preset: str | None = None,
    callback: Callback | None = None,
    **settings: Any,
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
        callback: called with every `Step`, the start (step 0) included.
        **settings: see `Settings`.

    Raises:
        ImpastoError: a file or setting is wrong; the text says which and how to mend it.
        Interrupted: Ctrl-C; it carries the picture as it is.
    """
    stylizer = Stylizer(painting, regions=regions, preset=preset, **settings)
    return stylizer.paint(photo, callback=callback)


@ordinary()
def resume(
    checkpoint: PathLike,
    *,
    callback: Callback | None = None,
    checkpoint_every: float = checkpoints.EVERY,
) -> Artwork:
    """Go on with a run from the checkpoint that it left, to its end.

    Arguments and errors are those of `Stylizer.paint`.

    Raises:
        ImpastoError: also, the checkpoint is missing or damaged, or a picture that it was begun
            with is gone or has changed.
    """
    record, tensors = checkpoints.read(checkpoint)
    files = located(checkpoint, record)
    with _of_this_version(checkpoint):
        note, settings = record["note"], dict(record["settings"])
        for name in {setting.name for setting in dataclasses.fields(Settings)} ^ set(settings):
            raise KeyError(name)  # another version had other ones
        settings |= {name: files[name] for name in ("init", "weights") if name in files}
        saved = {name: record[name] for name in ("progress", "seconds")}
        Painting.check(saved["progress"], tensors)
        paintings = [(files[role], share) for role, share in record["paintings"]]
        regions = [(files[mask], files[painting]) for mask, painting in record["regions"]]
        photo = files["photo"]
    stylizer = Stylizer(paintings or None, regions=regions, **settings)
    keeper = Keeper(Path(checkpoint), checkpoint_every)
    return stylizer._paint(images.read(photo), callback, keeper, note, (saved, tensors))


def located(checkpoint: PathLike, record: Mapping[str, Any]) -> dict[str, Path]:
    """Where the files that a run was begun with are now, by role; the right ones by their sha256.

    A folder may have been moved or copied, with its checkpoint: they are looked for where they lay
    as seen from the checkpoint, then right beside it, then at their old place.

    Raises:
        ImpastoError: one of them is gone or has changed, or the record is another version's.
    """
    folder = Path(os.path.realpath(checkpoint)).parent
    found: dict[str, Path] = {}
    with _of_this_version(checkpoint):
        for role, given in record["inputs"].items():
            old = Path(given["path"])
            places = [folder / given.get("from here", old.name), folder / old.name, old]
            there = [place for place in dict.fromkeys(places) if is_file(place)]
            right = [place for place in there if _sha256(place) == given["sha256"]]
            if right:
                found[role] = right[0]
            elif there:
                raise ImpastoError(
                    f"{os.fspath(checkpoint)} was begun with another {there[-1]}; "
                    f"put the {role} of then back, or begin anew"
                )
            else:
                raise ImpastoError(
                    f"{os.fspath(checkpoint)} was begun with {old}, which is gone; "
                    f"put the {role} back, or beside the checkpoint"
                )
    return found


@contextlib.contextmanager
def _of_this_version(checkpoint: PathLike) -> Iterator[None]:
    try:
        yield
    except ImpastoError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ImpastoError(
            f"{os.fspath(checkpoint)} was written by another version of impasto "
            f"({error} is missing); begin anew"
        ) from None


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


@dataclass(frozen=True)
class _Place:
    """Where a style goes: the paintings it is mixed of, by share; everywhere where no mask is."""

    name: str
    paintings: tuple[tuple[Picture, float], ...]
    mask: Picture | None = None


class Stylizer:
    """Paints any number of photos after one painting, or several.

    The encoder is loaded once, and the paintings' targets are computed once for each size.
    Arguments and errors are those of `stylize`.
    """

    @ordinary()
    def __init__(
        self,
        painting: Sources | None = None,
        *,
        regions: Regions = (),
        preset: str | None = None,
        **settings: Any,
    ) -> None:
        self.settings = make_settings(preset, **settings)
        paintings = _mixture(painting)
        self.places = [_Place("", paintings)] if paintings else []
        pairs = regions.items() if isinstance(regions, Mapping) else regions
        for number, (mask, source) in enumerate(pairs, 1):
            mixture = ((images.read_visible(source), 1.0),)
            self.places.append(_Place(f"region {number}", mixture, images.read_mask(mask)))
        if not self.places:
            raise ImpastoError("there is no style to paint in; give a painting, or a region")
        init = self.settings.init
        self.start = None if init in STARTS else images.read_visible(init)
        shares = self.settings.style_shares
        content = [self.settings.content_layer]
        self.studio = Studio(self.settings, [*content, *shares], targets=content)
        self.content_layer = self.studio.encoder.layer(self.settings.content_layer)
        self.style_shares = canonical(shares, self.studio.encoder.layer)
        self._targets: dict[tuple[str, int], Targets] = {}
        if self.settings.size != FULL:
            self._check_paintings(int(self.settings.size))  # too small a one is known at once

    @ordinary()
    def paint(
        self,
        photo: Source,
        *,
        callback: Callback | None = None,
        checkpoint: PathLike | None = None,
        checkpoint_every: float = checkpoints.EVERY,
        note: Mapping[str, Any] | None = None,
    ) -> Artwork:
        """Repaint one photo; see `stylize`.

        Args:
            photo: a picture file or a PIL image.
            callback: called with every `Step`, the start (step 0) included.
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
        return self._paint(picture, callback, keeper, dict(note or {}), None)

    def _paint(
        self,
        picture: Picture,
        callback: Callback | None,
        keeper: Keeper | None,
        note: Mapping[str, Any],
        saved: Saved | None,
    ) -> Artwork:
        settings = self.settings
        size = self.studio.result_size(picture, settings.size)
        self._check_paintings(max(size))
        inputs = self._inputs(picture).values()
        self.studio.pictures = sum(math.prod(source.image.size) for source in inputs)
        paintings = [
            (painting.name, self._painting_size(painting, max(size)))
            for place in self.places
            for painting, _ in place.paintings
        ]
        channels = 1 if settings.colors == "luminance" else 3
        self.studio.shown = 12 if settings.margin else 0  # without the margin
        if channels == 1 or self.places[0].mask is not None or len(self.places) > 1:
            self.studio.shown += 24 + 8 * len(self.places)  # in colour; masks and their areas
        levels = plan_levels(size, settings.steps, settings.levels, self._is_possible)
        scene = _Scene(self, picture, levels)
        self.studio.tell_of_memory(size, channels, paintings, scene.margin(levels[-1]))
        kept = None
        if keeper:
            folder = Path(os.path.realpath(keeper.path)).parent
            kept = Kept(keeper, self._resumable_record(picture, folder) | {"note": note})
        return make(
            Painting(scene, levels, settings.evaluations),
            picture.name,
            self._record(picture, size),
            restart=settings.restart,
            callback=callback,
            kept=kept,
            saved=saved,
        )

    def is_kept_in(self, checkpoint: PathLike, photo: Source) -> bool:
        """Whether a checkpoint is of this photo, painted as this stylizer would.

        Raises:
            ImpastoError: the photo can't be read, or the checkpoint.
        """
        folder = Path(os.path.realpath(checkpoint)).parent
        kept = checkpoints.read_record(checkpoint)
        own = self._resumable_record(images.read_visible(photo), folder)
        return _essence(kept) == _essence(json.loads(json.dumps(own)))

    def _painting_size(self, painting: Picture, longer: int) -> tuple[int, int]:
        scaled = max(1, round(longer * self.settings.style_scale))
        size = images.fitted_size(painting.image.size, scaled)
        self.studio.check_size(painting.name, size, list(self.style_shares))
        return size

    def _check_paintings(self, longer: int) -> None:
        for place in self.places:
            for painting, _ in place.paintings:
                self._painting_size(painting, longer)

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
            "keep_colors": self.settings.colors,
        }
        if self.start:
            settings["init"] = Path(self.start.name).name
        record = self.studio.record("stylize", size, **settings)
        for role, picture in self._inputs(photo).items():
            record[role] = named(picture)
        if self.places[0].mask is None and len(self.places[0].paintings) > 1:
            record["shares"] = [share for _, share in self.places[0].paintings]
        return record

    def _inputs(self, photo: Picture) -> dict[str, Picture]:
        """Every picture that went in, by role."""
        inputs = {"photo": photo}
        for place in self.places:
            for number, (painting, _) in enumerate(place.paintings, 1):
                inputs[_role(place, number)] = painting
            if place.mask:
                inputs[f"mask of {place.name}"] = place.mask
        return inputs | ({"init": self.start} if self.start else {})

    def _resumable_record(self, photo: Picture, folder: Path) -> dict[str, Any]:
        """What `resume` needs to begin the same run again, kept in a folder."""
        settings = dataclasses.asdict(self.settings)
        files = {role: (p.name, p.sha256) for role, p in self._inputs(photo).items()}
        if self.settings.weights is not None and self.studio.weights_file:
            files["weights"] = str(self.settings.weights), self.studio.weights_file["sha256"]
        inputs = {}
        for role, (name, digest) in files.items():
            path = os.path.abspath(name)  # noqa: PTH100
            inputs[role] = {"path": path, "sha256": digest}
            with contextlib.suppress(ValueError):  # on another drive
                # As the system sees it: ".." of a folder that is a link leads elsewhere.
                inputs[role]["from here"] = os.path.relpath(os.path.realpath(path), folder)
        settings |= {name: inputs[name]["path"] for name in ("init", "weights") if name in inputs}
        return {
            "impasto": __version__,
            "settings": settings,
            "inputs": inputs,
            "paintings": [
                (_role(place, number), share)
                for place in self.places
                if place.mask is None
                for number, (_, share) in enumerate(place.paintings, 1)
            ],
            "regions": [
                (f"mask of {place.name}", _role(place, 1)) for place in self.places if place.mask
            ],
        }


def _essence(record: Mapping[str, Any]) -> object:
    """What has to be the same in two checkpoints' records for one run to go on with the other."""
    inputs = {role: given["sha256"] for role, given in record.get("inputs", {}).items()}
    settings = {n: v for n, v in record.get("settings", {}).items() if n not in inputs}  # paths
    return inputs, settings, record.get("paintings"), record.get("regions")


Targets = Mapping[str, tuple[Style, Tensor]]
"""For each layer, what style is there, and the paintings' statistic."""


class _Scene(Scene):
    """A photo as `Painting` sees it: in colour, or its luminance where that alone is painted.

    Around it is the margin, in which it is mirrored; what is shown is without.
    """

    refined: Spectrum = "painted"

    def __init__(self, stylizer: Stylizer, photo: Picture, levels: Sequence[Level]) -> None:
        self.first = levels[0]
        self.longer = max(levels[-1].size)
        self.shrunk = 1 << (len(levels) - 1)  # how many times smaller the coarsest level is
        self.stylizer = stylizer
        self.studio = stylizer.studio
        self.settings = stylizer.settings
        self.photo = photo
        self.grey = stylizer.settings.colors == "luminance"
        self.shows_photo = self.grey or stylizer.places[0].mask is not None
        self._fitted: dict[tuple[str, bool, tuple[int, int]], Image.Image] = {}

    def content(self, level: Level) -> Tensor:
        content = self._coloured(level)
        return images.luminance(content) if self.grey else content

    def objective(self, level: Level, content: Tensor) -> tuple[Objective, Optimiser]:
        settings, content_layer = self.settings, self.stylizer.content_layer
        style = self._style_losses(level, content)
        statistics = {loss.name: loss.statistic for loss in style}
        measured = self.studio.measure(content, [content_layer], statistics)
        style_weight = 2 * settings.strength * settings.total_style_weight
        if settings.scaling == "relative":
            # Relative to the photo's own style loss, too: a photo that is far from the painting
            # would else be burdened with more style than one that is close. In regions alone,
            # relative to what they cover: else the smaller one is, the stronger its style.
            own = sum(loss.weight * loss.distance(measured[loss.name]).item() for loss in style)
            covered = sum(loss.weight for loss in style) or 1.0
            style_weight /= max(own / covered, MIN_STYLE_DISTANCE)
        losses: list[Loss] = [
            ContentLoss(
                content_layer,
                measured[content_layer],
                2 * (1 - settings.strength) * self._content_weight(level),
                settings.scaling,
                self.studio.floors[content_layer],
            ),
            *(dataclasses.replace(loss, weight=style_weight * loss.weight) for loss in style),
        ]
        if settings.tv:
            losses.append(TotalVariationLoss(2 * settings.strength * settings.tv))
        return self.studio.objective(losses, content), self.studio.optimiser(content)

    def _content_weight(self, level: Level) -> float:
        """Less at levels where the content layer sees the photo's texture and no shapes any more.

        The shapes are there: the level before has painted them.
        """
        held = 1.0 if level == self.first else min(1.0, SEEN / max(level.size))
        return held * self.settings.content_weight

    def start(self, level: Level, content: Tensor) -> Tensor:
        start = self._starting_image(level, content)
        return images.luminance(start) if self.grey and start.shape[1] == 3 else start

    def refine(self, before: Level, level: Level, painted: Tensor) -> Tensor:
        coarse, fine = self.content(before), self.content(level)
        return refine(painted, coarse, fine, self._detail(level))

    def show(self, level: Level, image: Tensor) -> Tensor:
        is_everywhere = self.stylizer.places[0].mask is None
        visible = self._visible(level)
        shown = image
        if not is_everywhere or self.grey:
            photo = self._coloured(level)
            shown = images.with_luminance(photo, image) if self.grey else image
            if not is_everywhere:
                shown = photo + self._covered(level) * (shown - photo)
        # What was cut out stays cut out.
        shown = shown if visible is None else torch.cat([shown, visible], 1)
        margin = self.margin(level)
        height, width = (side - 2 * margin for side in shown.shape[-2:])
        return shown[..., margin : margin + height, margin : margin + width].contiguous()

    def _covered(self, level: Level) -> Tensor:
        """How much of each pixel [1, 1, height, width] is painted, where there are regions."""
        masks = (mask for _, mask in self._masks(level))
        return torch.stack([mask for mask in masks if mask is not None]).sum(0)

    def _detail(self, level: Level) -> float | Tensor:
        """How much of the photo's detail there is at first; all where no paint is to go."""
        kept = self.settings.kept_detail
        if self.stylizer.places[0].mask is None or kept == 1:
            return kept
        return 1 - (1 - kept) * self._covered(level)

    def _style_losses(self, level: Level, content: Tensor) -> list[StyleLoss]:
        """A loss for each place and layer; their weights sum up to 1."""
        total = sum(self.stylizer.style_shares.values())
        losses = []
        for place, mask in self._areas(level):
            weight = 1.0 if mask is None else mask.mean().item()
            targets = self._targets(place, mask, level, content)
            for layer, share in self.stylizer.style_shares.items():
                area = None if mask is None else self.studio.area(layer, mask)
                if mask is not None and area is None:
                    continue
                style, target = targets[layer]
                scaling = self.settings.scaling
                loss = StyleLoss(
                    layer, target, weight * share / total, scaling, style, area, place.name
                )
                losses.append(loss)
        return losses

    def _masks(self, level: Level) -> list[tuple[_Place, Tensor | None]]:
        """Each place with how much each pixel belongs to it [1, 1, height, width]; none: all."""
        places = self.stylizer.places
        if len(places) == 1 and places[0].mask is None:
            return [(places[0], None)]
        masks = []
        for place in places:
            if place.mask:
                masks.append(images.luminance(self._tensor(place.mask, level)))
        covered = sum(masks)
        assert isinstance(covered, Tensor)
        masks = [mask / covered.clamp_min(1.0) for mask in masks]
        if places[0].mask is None:
            masks.insert(0, (1 - covered).clamp_min(0))
        return list(zip(places, masks, strict=True))

    def _areas(self, level: Level) -> list[tuple[_Place, Tensor | None]]:
        """The places of which something is to be seen, with how much of it is, as in `_masks`."""
        visible = self._visible(level)
        areas = []
        for place, mask in self._masks(level):
            area = mask if visible is None else visible if mask is None else mask * visible
            if area is None or area.mean() >= LEAST_AREA:
                areas.append((place, area))
        return areas

    def _targets(
        self, place: _Place, mask: Tensor | None, level: Level, content: Tensor
    ) -> Targets:
        colors, kept = self.settings.colors, self.stylizer._targets
        key = place.name, max(level.size)
        if colors is None and key in kept:
            return kept[key]
        paintings = []
        for painting, share in place.paintings:
            size = self.stylizer._painting_size(painting, max(level.size))
            visible = self.studio.visible(painting, size)
            fitted = self.studio.tensor(images.resize(painting.colors, size))  # needed but once
            image = self._recoloured(fitted, mask, content, visible)
            paintings.append(Exemplar(image, share, visible))
        targets = self._measured(paintings)
        if colors is None:
            kept[key] = targets
        return targets

    def _measured(self, paintings: Paintings) -> Targets:
        layers = list(self.stylizer.style_shares)
        styles = self.studio.styles(self.settings.style_loss, layers, paintings)
        statistics = {layer: Statistic(layer, style) for layer, style in styles.items()}
        means = self.studio.mixed(paintings, statistics)
        return {layer: (styles[layer], means[layer]) for layer in layers}

    def _recoloured(
        self,
        painting: Tensor,
        mask: Tensor | None,
        content: Tensor,
        visible: Tensor | None = None,
    ) -> Tensor:
        if self.settings.colors == "luminance":
            return images.match_luminance(images.luminance(painting), content, mask, visible)
        if self.settings.colors == "histogram":
            return images.match_colors(painting, content, mask, visible)
        return painting

    def _starting_image(self, level: Level, content: Tensor) -> Tensor:
        if self.stylizer.start:
            cut_out = self.studio.tensor(images.cover(self.stylizer.start.colors, level.size))
            return self._with_margin(cut_out, level)
        if self.settings.init == "painting":
            painting, _ = self.stylizer.places[0].paintings[0]
            cut_out = self.studio.tensor(images.cover(painting.colors, level.size))
            return self._recoloured(self._with_margin(cut_out, level), None, content)
        noise = self.settings.init == "noise"
        start = self.studio.noise(content.shape) if noise else content
        if self.settings.kept_detail == 1:
            return start
        sigma = max(BLUR * self.longer, LEAST_BLUR) * max(level.size) / self.longer
        plain = images.blurred(start, sigma)
        if self.settings.colors is None:
            plain = self._in_paintings_colors(plain, level)
        return plain + self._detail(level) * (start - plain)

    def _in_paintings_colors(self, image: Tensor, level: Level) -> Tensor:
        """Recoloured to the paintings' mean and covariance, each place by itself.

        Strokes come in colours that are the painting's from the start; a part of the photo in
        others would stay as it is, since a Gram matrix can be met without it.
        """
        result, masks = image, {place.name: mask for place, mask in self._masks(level)}
        for place, area in self._areas(level):
            goal, weights = self._palette(place)
            recoloured = images.match_colors(image, goal, weights, area, LEAST_SPREAD)
            mask = masks[place.name]
            result = result + (1.0 if mask is None else mask) * (recoloured - image)
        return result

    def _palette(self, place: _Place) -> tuple[Tensor, Tensor]:
        """The colours of a place's paintings [1, 3, 1, n], and how much each counts."""
        colors, weights = [], []
        for painting, share in place.paintings:
            size = images.fitted_size(painting.image.size, PALETTE)
            own = self.studio.tensor(images.resize(painting.colors, size)).flatten(2)
            visible = self.studio.visible(painting, size)
            counts = torch.ones_like(own[:, :1]) if visible is None else visible.flatten(2)
            colors.append(own)
            weights.append(share * counts / counts.sum())
        return torch.cat(colors, 2)[:, :, None], torch.cat(weights, 2)[:, :, None]

    def _coloured(self, level: Level) -> Tensor:
        return self._tensor(self.photo, level)

    def _tensor(self, picture: Picture, level: Level) -> Tensor:
        key = picture.sha256, picture.alpha is None, level.size
        fitted = self._fitted.get(key) or images.resize(picture.colors, level.size)
        if self.shows_photo:  # at every step, and a large one takes its time
            self._fitted[key] = fitted
        return self._with_margin(self.studio.tensor(fitted), level)

    def _visible(self, level: Level) -> Tensor | None:
        """How much is there of each pixel of the photo; none: all of it."""
        visible = self.studio.visible(self.photo, level.size)
        return None if visible is None else self._with_margin(visible, level)

    def _with_margin(self, image: Tensor, level: Level) -> Tensor:
        return images.mirrored(image, self.margin(level))

    def margin(self, level: Level) -> int:
        """How many pixels are painted around the picture at a level, and cut off.

        At each half as many as at the next: what was painted is enlarged to where it belongs.
        """
        if not self.settings.margin:
            return 0
        coarsest = math.ceil((MARGIN + self.longer // PIXELS_A_MARGIN) / self.shrunk)
        return round(coarsest * self.shrunk * max(level.size) / self.longer)


def _mixture(painting: Sources | None) -> tuple[tuple[Picture, float], ...]:
    """Paintings with their shares, which sum up to 1."""
    if painting is None:
        return ()
    if isinstance(painting, Mapping):
        entries: list[Any] = list(painting.items())
    elif isinstance(painting, str | os.PathLike | Image.Image | Picture):
        entries = [painting]
    elif isinstance(painting, Iterable):
        entries = list(painting)
    else:
        entries = [painting]  # which nobody can read
    pairs = [entry if isinstance(entry, tuple | list) else (entry, 1.0) for entry in entries]
    for pair in pairs:
        if len(pair) != 2:
            raise ImpastoError(
                f"a painting was given with {len(pair) - 1} numbers; give one that says how much "
                "it counts, or none"
            )
    pairs = [(source, plain(weight)) for source, weight in pairs]
    for source, weight in pairs:
        if not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
            which = f" {source}" if isinstance(source, str | os.PathLike) else ""
            raise ImpastoError(f"the painting{which} counts {weight}; give a number of at least 0")
    total = sum(weight for _, weight in pairs)
    if pairs and not total:
        raise ImpastoError("none of the paintings counts; give one a number above 0")
    return tuple(
        (images.read_visible(source), weight / total) for source, weight in pairs if weight
    )


def _role(place: _Place, number: int) -> str:
    """What a record calls a place's painting."""
    role = "painting" if number == 1 else f"painting {number}"
    return f"{role} of {place.name}" if place.name else role
