"""The objective as a whole: value, gradient and parts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from impasto import (
    ContentLoss,
    Encoder,
    ImpastoError,
    Loss,
    Objective,
    StyleLoss,
    TotalVariationLoss,
    gram,
)

STYLE = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")


def losses(encoder: Encoder, photo: Tensor, painting: Tensor) -> list[Loss]:
    with torch.no_grad():
        content = encoder(photo, ["relu4_2"])["relu4_2"]
        style = encoder(painting, STYLE)
    return [
        ContentLoss("relu4_2", content, 1.0),
        *(StyleLoss(layer, gram(style[layer]), 2.5) for layer in STYLE),
        TotalVariationLoss(0.1),
    ]


def test_content_alone_vanishes_at_the_photo(
    encoder: Encoder, photo: Tensor, noise: Tensor
) -> None:
    with torch.no_grad():
        target = encoder(photo, ["relu4_2"])["relu4_2"]
    objective = Objective(encoder, [ContentLoss("relu4_2", target)])
    there = objective(photo)
    assert there.loss == 0
    assert there.gradient.abs().max() == 0
    elsewhere = objective(noise)
    assert elsewhere.loss > 0.1
    assert elsewhere.gradient.abs().max() > 0


def test_the_loss_is_the_weighted_sum_of_its_parts(
    encoder: Encoder, photo: Tensor, painting: Tensor, noise: Tensor
) -> None:
    terms = losses(encoder, photo, painting)
    result = Objective(encoder, terms)(noise)
    assert list(result.parts) == [term.name for term in terms]
    total = sum(term.weight * result.parts[term.name] for term in terms)
    assert result.loss == pytest.approx(total, rel=1e-12)
    assert result.gradient.shape == noise.shape
    assert not noise.requires_grad


def test_the_gradient_matches_finite_differences(
    encoder64: Encoder, photo: Tensor, painting: Tensor, noise: Tensor
) -> None:
    objective = Objective(encoder64, losses(encoder64, photo.double(), painting.double()))
    image = noise.double()
    direction = torch.randn(
        image.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4)
    )
    step = 1e-6
    ahead, behind = objective(image + step * direction), objective(image - step * direction)
    slope = (objective(image).gradient * direction).sum().item()
    assert slope == pytest.approx((ahead.loss - behind.loss) / (2 * step), rel=1e-6)


def test_float32_agrees_with_float64(
    encoder: Encoder, encoder64: Encoder, photo: Tensor, painting: Tensor, noise: Tensor
) -> None:
    single = Objective(encoder, losses(encoder, photo, painting))(noise)
    double = Objective(encoder64, losses(encoder64, photo.double(), painting.double()))(
        noise.double()
    )
    assert single.loss == pytest.approx(double.loss, rel=1e-5)
    cosine = torch.cosine_similarity(
        single.gradient.double().flatten(), double.gradient.flatten(), dim=0
    )
    assert cosine.item() > 0.999999


def test_a_grey_image_has_the_summed_gradient(
    encoder: Encoder, photo: Tensor, painting: Tensor, noise: Tensor
) -> None:
    objective = Objective(encoder, losses(encoder, photo, painting)[:-1])
    grey = noise[:, :1]
    result = objective(grey)
    coloured = objective(grey.expand(1, 3, -1, -1).contiguous())
    assert result.loss == pytest.approx(coloured.loss, rel=1e-6)
    summed = coloured.gradient.sum(1, keepdim=True)
    assert torch.allclose(result.gradient, summed, atol=1e-5 * summed.abs().max().item())


def test_what_makes_no_objective(encoder: Encoder, photo: Tensor) -> None:
    with pytest.raises(ImpastoError, match="at least one loss"):
        Objective(encoder, [])
    with pytest.raises(ImpastoError, match="share a name"):
        Objective(encoder, [TotalVariationLoss(), TotalVariationLoss()])
    with pytest.raises(ImpastoError, match="no layer 'relu42'; did you mean 'relu4_2'"):
        Objective(encoder, [ContentLoss("relu42", photo)])
