"""What every loss promises: unsupervised pixels do not matter, images are independent, gradients are right."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from metricanything.losses.alignment import Shortlist
from metricanything.losses.confidence import confidence_l1
from metricanything.losses.depth import mask_bce, masked_mean, ssi_l1, standardise, trimmed_l1, trimmed_relative
from metricanything.losses.gradients import gradient_l1, mage, male, msge
from metricanything.losses.normals import edge_angle, normal_angle, point_normal_angle
from metricanything.losses.points import align_points, global_points, local_points

H, W = 14, 13
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def keep(mask: Tensor) -> Tensor:
    return torch.full((len(mask),), 0.8)


def normals(p: Tensor, t: Tensor, m: Tensor) -> Tensor:
    v, u = torch.meshgrid(torch.linspace(-0.5, 0.5, H), torch.linspace(-0.6, 0.6, W), indexing="ij")
    return normal_angle(p, 5 + 0.1 * t, m, torch.stack([u, v], dim=-1).expand(len(p), H, W, 2))


def local(p: Tensor, t: Tensor, m: Tensor) -> Tensor:
    """All patches that there can be, of a wide view, so that most are filled."""
    anchors = torch.arange(0, H * W, 5).expand(len(m), -1)
    return local_points(p, t, m, torch.full((len(m),), 0.2), align_points(p, t, m, 8)[0], anchors, level=2, side=5)


def smooth(p: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Points on a surface without steps."""
    slope = torch.stack(torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij"))
    plane = torch.cat([slope, 50 + slope[:1]]).to(t.dtype)
    return plane + 0.1 * p.to(t.dtype), plane + 0.1 * t


#: Number of channels, loss.
LOSSES: dict[str, tuple[int, Loss]] = {
    "masked_mean": (1, lambda p, t, m: masked_mean(p, m)),
    "trimmed_l1": (1, lambda p, t, m: trimmed_l1(p, t, m, keep(m))),
    "trimmed_relative": (1, lambda p, t, m: trimmed_relative(p, t, m, keep(m))),
    "standardise": (1, lambda p, t, m: standardise(p, m)[0].pow(3).mean(dim=(1, 2, 3))),
    "ssi_l1": (1, lambda p, t, m: ssi_l1(p, t, m, keep(m))),
    "mask_bce": (1, lambda p, t, m: mask_bce(p, t > 0, m)),
    "gradient_l1": (1, gradient_l1),
    "mage": (1, mage),
    "male": (1, male),
    "msge": (1, msge),
    "confidence_l1": (1, lambda p, t, m: confidence_l1(p, t, m, 0.5 * p)),
    "normal_angle": (1, normals),
    "scale": (3, lambda p, t, m: align_points(p, t, m, 8)[0]),
    "shift": (3, lambda p, t, m: align_points(p, t, m, 8)[1]),
    "global_points": (3, lambda p, t, m: global_points(p, t, m, *align_points(p, t, m, 8, Shortlist()))),
    "local_points": (3, local),
    "edge_angle": (3, edge_angle),
    "point_normal_angle": (3, lambda p, t, m: point_normal_angle(*smooth(p, t), m)),
}
every_loss = pytest.mark.parametrize(("channels", "loss"), LOSSES.values(), ids=list(LOSSES))


def maps(channels: int, dtype: torch.dtype, share: float = 0.9) -> tuple[Tensor, Tensor, Tensor]:
    """Prediction near its target (3, C, H, W), and a mask without any pixel in the last image."""
    generator = torch.Generator().manual_seed(4)
    prediction, target = torch.randn(2, 3, channels, H, W, generator=generator, dtype=torch.float64).to(dtype)
    if channels == 3:
        target[:, 2] = target[:, 2].exp()
    mask = torch.rand(3, 1, H, W, generator=generator) < share
    mask[2] = False
    return target + 0.3 * prediction, target, mask


@every_loss
@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf, 1e30, 0.0])
@pytest.mark.parametrize("where", ["target", "prediction"])
def test_unsupervised_pixels_reach_neither_loss_nor_gradient(
    channels: int, loss: Loss, garbage: float, where: str
) -> None:
    prediction, target, mask = maps(channels, torch.float32)
    results = []
    for value in (1.0, garbage):
        p = torch.where(mask, prediction, value if where == "prediction" else prediction).requires_grad_()
        t = torch.where(mask, target, value if where == "target" else target)
        result = loss(p, t, mask)
        result.sum().backward()
        results.append((result.detach(), p.grad))
    (clean, clean_grad), (spoilt, spoilt_grad) = results
    assert torch.isfinite(spoilt).all()
    torch.testing.assert_close(spoilt, clean, rtol=0, atol=0)
    torch.testing.assert_close(spoilt_grad, clean_grad, rtol=0, atol=0)
    assert (spoilt_grad[~mask.expand_as(spoilt_grad)] == 0).all()
    assert clean_grad.abs().sum() > 0


@every_loss
def test_nothing_supervised_is_zero(channels: int, loss: Loss) -> None:
    prediction, target, mask = maps(channels, torch.float64, share=0)
    prediction.requires_grad_()
    result = loss(prediction, target * math.nan, mask)
    assert result.tolist() == [0, 0, 0]
    result.sum().backward()
    assert (prediction.grad == 0).all()


@every_loss
def test_images_of_a_batch_are_independent(channels: int, loss: Loss) -> None:
    images = maps(channels, torch.float64)
    together = loss(*images)
    assert together.shape == (3,)
    for i in range(3):
        torch.testing.assert_close(loss(*(image[i : i + 1] for image in images))[0], together[i])
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(loss(*(image[order] for image in images)), together[order])


@every_loss
def test_gradients(channels: int, loss: Loss) -> None:
    prediction, target, mask = maps(channels, torch.float64)
    prediction.requires_grad_()
    # Every alignment is a search: numbers one at a time would take minutes, and a random direction sees them all.
    assert torch.autograd.gradcheck(lambda p: loss(p, target, mask), prediction, fast_mode=channels == 3)


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lower_precision_is_computed_in_float32(channels: int, loss: Loss, dtype: torch.dtype) -> None:
    """Rounded inputs cost what they cost, but nothing is rounded after that, under autocast either."""
    prediction, target, mask = maps(channels, dtype)
    exact = loss(prediction.float(), target.float(), mask)
    with torch.autocast("cpu", dtype=dtype):
        # Targets come from data, in float32.
        result = loss(prediction, target.float(), mask)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, exact, rtol=1e-6, atol=1e-7)
