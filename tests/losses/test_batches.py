"""A batch is as good as its pictures one at a time."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from impasto import (
    STYLES,
    ContentLoss,
    Encoder,
    GaussianMmd,
    ImpastoError,
    MeanStyle,
    Objective,
    Statistic,
    StyleLoss,
    TotalVariationLoss,
    lbfgs,
    measure,
)
from impasto.kernels import ops
from tests.conftest import sample_tensor

LAYERS = ("relu1_1", "relu3_1")
EACH = [GaussianMmd(300.0) if name == "mmd-gaussian" else style for name, style in STYLES.items()]
each_style = pytest.mark.parametrize("style", EACH, ids=lambda style: style.name)


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    names = ("kingfisher", "owl", "great_wave")
    return torch.cat([sample_tensor(name, 64)[..., :36, :50] for name in names])


def terms(
    encoder: Encoder, style: MeanStyle, pictures: Tensor, *, one_style: bool = False
) -> list[ContentLoss | StyleLoss | TotalVariationLoss]:
    """Losses with a target and an area for each picture; or one style for all of them."""
    content = measure(encoder, pictures.flip(-1), features=["relu3_2"])["relu3_2"]
    paintings = pictures.roll(1, 0)[: 1 if one_style else None]
    targets = measure(encoder, paintings, statistics={n: Statistic(n, style) for n in LAYERS})
    losses: list[ContentLoss | StyleLoss | TotalVariationLoss] = [ContentLoss("relu3_2", content)]
    for layer in LAYERS:
        stride = encoder.rows[layer].stride
        area = torch.rand(3, 1, 36 // stride, 50 // stride, generator=torch.Generator())
        area = area / area.mean((2, 3), keepdim=True)
        losses.append(StyleLoss(layer, targets[layer], 3.0, style=style, area=area))
    return [*losses, TotalVariationLoss(2.0)]


def entry(loss: object, number: int) -> ContentLoss | StyleLoss | TotalVariationLoss:
    """The loss of one picture of a batch."""
    assert isinstance(loss, ContentLoss | StyleLoss | TotalVariationLoss)
    own = {
        name: tensor[number : number + 1] if len(tensor) > 1 else tensor
        for name in ("target", "area")
        if isinstance(tensor := getattr(loss, name, None), Tensor)
    }
    return dataclasses.replace(loss, **own)  # type: ignore[arg-type]


@each_style
@pytest.mark.parametrize("way", ["compiled", "plain", "tiles", "one style"])
def test_a_batch_is_one_at_a_time(
    style: MeanStyle, way: str, encoder: Encoder, pictures: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "plain":
        monkeypatch.setattr(ops, "suits", lambda _: False)
    tile = 16 if way == "tiles" else None
    losses = terms(encoder, style, pictures, one_style=way == "one style")
    together = Objective(encoder, losses, tile=tile)(pictures)
    assert together.loss == pytest.approx(sum(together.losses), rel=1e-12)
    for number in range(3):
        own = [entry(loss, number) for loss in losses]
        alone = Objective(encoder, own, tile=tile)(pictures[number : number + 1])
        assert together.losses[number] == pytest.approx(alone.loss, rel=2e-5)
        difference = together.gradient[number] - alone.gradient[0]
        assert difference.norm() <= 1e-4 * alone.gradient.norm()


def test_memory_is_that_of_one_times_their_number(encoder: Encoder) -> None:
    losses = [TotalVariationLoss(), ContentLoss("relu3_2", torch.ones(1, 256, 64, 64))]
    enough = Objective(encoder, losses, memory=300 * 2**20)
    assert enough.segments((256, 256), 1) is None
    assert enough.segments((256, 256), 4) is not None


def test_what_does_not_fit_together_is_said(encoder: Encoder, pictures: Tensor) -> None:
    losses = terms(encoder, EACH[0], pictures)
    with pytest.raises(ImpastoError, match=r"content relu3_2 has 3 entries .* 2 pictures; give"):
        Objective(encoder, losses)(pictures[:2])
    with pytest.raises(ImpastoError, match=r"one image .*a batch"):
        lbfgs(Objective(encoder, losses), pictures, steps=2)
