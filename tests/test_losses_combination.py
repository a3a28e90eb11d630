"""Which image gets which loss: by the kind of its label and the meaning of its scale."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from metricanything.losses.combination import DepthWeights, depth_losses
from metricanything.losses.confidence import confidence_l1
from metricanything.losses.depth import ssi_l1, trimmed_l1, trimmed_relative
from metricanything.losses.gradients import gradient_l1, mage, male, msge
from metricanything.losses.normals import normal_angle

H, W = 20, 24
ALL = DepthWeights(value=0.7, edges=0.5, mage=1.5, male=0.3, msge=0.9, normals=0.2, confidence=0.4)
#: The images of every batch here.
KINDS = ("rendered metric", "captured metric", "rendered up to scale", "captured up to scale")
RENDERED, METRIC = torch.tensor([True, False, True, False]), torch.tensor([True, True, False, False])
KEEP = torch.tensor([1.0, 0.8, 1.0, 0.8])


def images(seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Four images with some unknown pixels: prediction and target C > 0 of near planes."""
    generator = torch.Generator().manual_seed(seed)
    v, u = torch.meshgrid(torch.linspace(-0.5, 0.5, H), torch.linspace(-0.6, 0.6, W), indexing="ij")
    plane = torch.stack([u, v], dim=-1).expand(4, H, W, 2).to(dtype)
    noise = torch.randn(3, 4, 1, H, W, generator=generator, dtype=torch.float64).to(dtype)
    target = (1 + 0.2 * u - 0.1 * v).to(dtype) * (0.01 * noise[0]).exp() * 0.5
    known = torch.rand(4, 1, H, W, generator=generator) < 0.9
    prediction = target * (0.1 * noise[1]).exp()
    return {
        "prediction": prediction,
        "target": torch.where(known, target, torch.nan),
        "known": known,
        "log_confidence": noise[2],
        "plane_BHW2": plane,
    }


def combine(batch: dict[str, Tensor], weights: DepthWeights = ALL, **options: object) -> dict[str, Tensor]:
    return depth_losses(**{"rendered_B": RENDERED, "metric_B": METRIC, **batch, **options}, weights=weights)  # type: ignore[arg-type]


def slow_standardise(value: Tensor, mask: Tensor) -> Tensor:
    result = torch.zeros_like(value)
    for i, (x, m) in enumerate(zip(value, mask, strict=True)):
        centred = x[m] - np.median(x[m])
        result[i][m] = centred / centred.abs().mean()
    return result


def test_terms_are_means_over_their_images() -> None:
    batch = images()
    p, t, m = batch["prediction"], batch["target"], batch["known"]
    terms = combine(batch)
    standard_p, standard_t = (slow_standardise(x, m) for x in (p, t))
    comparable = torch.cat([p[:2], standard_p[2:]]), torch.cat([t[:2], standard_t[2:]]), m
    metric, relative = trimmed_l1(p, t, m, KEEP)[:2], ssi_l1(p, t, m, KEEP)[2:]
    expected = {"value": 0.7 * torch.cat([metric, relative]).mean()}
    for name, loss in {"edges": gradient_l1, "mage": mage, "male": male, "msge": msge}.items():
        expected[name] = getattr(ALL, name) * loss(*comparable)[[0, 2]].mean()
    expected["confidence"] = 0.4 * confidence_l1(p, t, m, batch["log_confidence"])[:2].mean()
    expected["normals"] = 0.2 * normal_angle(1 / p, 1 / t, m, batch["plane_BHW2"])[0]
    assert set(terms) == set(expected)
    for name, value in expected.items():
        assert value != 0
        torch.testing.assert_close(terms[name], value)


#: Which of the four images a term reaches.
REACH = {
    "value": [True, True, True, True],
    "edges": [True, False, True, False],
    "mage": [True, False, True, False],
    "male": [True, False, True, False],
    "msge": [True, False, True, False],
    "normals": [True, False, False, False],
    "confidence": [True, True, False, False],
}


@pytest.mark.parametrize("logarithmic", [False, True])
@pytest.mark.parametrize("name", list(REACH))
def test_kind_and_scale_choose_the_terms(name: str, logarithmic: bool) -> None:
    batch = images()
    if logarithmic:
        batch |= {"prediction": batch["prediction"].log(), "target": batch["target"].log()}
    batch["prediction"].requires_grad_()
    combine(batch, logarithmic=logarithmic)[name].backward()
    gradient = batch["prediction"].grad
    assert (gradient.flatten(1) != 0).any(dim=1).tolist() == REACH[name]
    assert (gradient[~batch["known"]] == 0).all()


def test_labels_that_are_not_metric_can_be_left_out() -> None:
    batch = images()
    batch["prediction"].requires_grad_()
    terms = combine(batch, dataclasses.replace(ALL, up_to_scale=False))
    first = {name: value[:2] for name, value in batch.items()}
    alone = combine(first, rendered_B=RENDERED[:2], metric_B=METRIC[:2])
    for name, value in terms.items():
        torch.testing.assert_close(value, alone[name])
    sum(terms.values()).backward()
    assert (batch["prediction"].grad[2:] == 0).all()


@given(st.floats(0.1, 10), st.floats(-0.5, 3), st.integers(0, 20))
def test_what_up_to_scale_labels_do_not_say_does_not_count(factor: float, offset: float, seed: int) -> None:
    batch = images(seed)
    moved = factor * batch["prediction"] + offset
    moved = torch.where(METRIC.view(4, 1, 1, 1), batch["prediction"], moved)
    for name, value in combine(batch).items():
        torch.testing.assert_close(combine({**batch, "prediction": moved})[name], value)
    other = {"prediction": batch["prediction"].log(), "target": batch["target"].log()}
    shifted = other["prediction"] + math.log(factor) * ~METRIC.view(4, 1, 1, 1)
    expected = combine({**batch, **other}, logarithmic=True)
    for name, value in combine({**batch, **other, "prediction": shifted}, logarithmic=True).items():
        torch.testing.assert_close(value, expected[name])


def test_logarithm_keeps_the_contrast_of_up_to_scale_labels() -> None:
    """In log C a change of unit is a shift; a factor there would be a power of the depth."""
    batch = images()
    batch |= {"prediction": 2 * batch["target"].log(), "target": batch["target"].log()}
    weights = DepthWeights()
    nothing = torch.zeros(4, dtype=torch.bool)
    assert combine(batch, weights, metric_B=nothing, logarithmic=True)["value"] > 0.01
    assert combine(batch, weights, metric_B=nothing, logarithmic=False)["value"] < 1e-12


def test_normals_do_not_depend_on_the_representation() -> None:
    batch = images()
    logs = {"prediction": batch["prediction"].log(), "target": batch["target"].log()}
    torch.testing.assert_close(combine({**batch, **logs}, logarithmic=True)["normals"], combine(batch)["normals"])


@pytest.mark.parametrize(("image", "ignored"), [(0, False), (1, True), (2, False), (3, True)], ids=KINDS)
def test_outliers_count_in_rendered_labels_alone(image: int, ignored: bool) -> None:
    """Of log C, whose standardisation is by the median alone, which outliers on both sides do not move."""
    batch = {name: value[image : image + 1] for name, value in images().items()}
    batch |= {"prediction": batch["prediction"].log(), "target": batch["target"].log()}
    inside = batch["known"].flatten().nonzero()[:, 0]
    centred = (batch["target"] - batch["target"][batch["known"]].median()).flatten()[inside]
    ordered = inside[centred.argsort()]
    tenth = len(inside) // 10
    values = []
    for size in (5.0, 500.0):
        target = batch["target"].clone().flatten()
        target[ordered[:tenth]] -= size
        target[ordered[-tenth:]] += size
        options = {"rendered_B": RENDERED[image : image + 1], "metric_B": METRIC[image : image + 1]}
        corrupted = {**batch, "target": target.view_as(batch["target"])}
        values.append(combine(corrupted, DepthWeights(), logarithmic=True, **options)["value"])
    if ignored:
        torch.testing.assert_close(*values)
        assert values[0] < 0.2
    else:
        assert values[1] > 50 * values[0]


def test_standard_gradients_of_metric_labels() -> None:
    weights = DepthWeights(value=0.0, mage=1.0, standard_gradients=True)
    batch = images()
    expected = combine(batch, weights)["mage"]
    scaled = {**batch, "prediction": 3 * batch["prediction"] + 1}
    torch.testing.assert_close(combine(scaled, weights)["mage"], expected)
    p, t = (slow_standardise(batch[name], batch["known"]) for name in ("prediction", "target"))
    torch.testing.assert_close(expected, mage(p, t, batch["known"])[[0, 2]].mean())


@pytest.mark.parametrize("logarithmic", [False, True])
@pytest.mark.parametrize("empty", [[0], [1, 2], [0, 1, 2, 3]])
@pytest.mark.parametrize("garbage", [math.nan, math.inf, 0.0, -1.0])
def test_images_without_labels_do_not_count(logarithmic: bool, empty: list[int], garbage: float) -> None:
    batch = images(dtype=torch.float32)
    batch["known"][empty] = False
    batch["prediction"] = torch.where(batch["known"], batch["prediction"], garbage).requires_grad_()
    terms = combine(batch, logarithmic=logarithmic)
    sum(terms.values()).backward()
    assert torch.isfinite(batch["prediction"].grad).all()
    assert (batch["prediction"].grad[~batch["known"]] == 0).all()
    left = [i for i in range(4) if i not in empty]
    if not left:
        assert all(value == 0 for value in terms.values())
        return
    rest = {name: value[left] for name, value in batch.items()}
    alone = combine(rest, rendered_B=RENDERED[left], metric_B=METRIC[left], logarithmic=logarithmic)
    for name, value in terms.items():
        torch.testing.assert_close(value, alone[name])


@pytest.mark.parametrize(
    ("weights", "missing"),
    [(DepthWeights(confidence=1.0), "log_confidence"), (DepthWeights(normals=1.0), "plane_BHW2")],
)
def test_terms_without_their_input(weights: DepthWeights, missing: str) -> None:
    batch = images()
    del batch[missing]
    with pytest.raises(ValueError, match=missing):
        combine(batch, weights)


def test_relative_errors_are_of_logarithms() -> None:
    batch = images()
    weights = DepthWeights(relative=2.0)
    with pytest.raises(ValueError, match="logarithmic"):
        combine(batch, weights)
    batch |= {"prediction": batch["prediction"].log(), "target": batch["target"].log()}
    terms = combine(batch, DepthWeights(relative=2.0, up_to_scale=False), logarithmic=True)
    p, t, m = batch["prediction"], batch["target"], batch["known"]
    expected = 2 * trimmed_relative(p, t, m, KEEP)[METRIC].mean()
    torch.testing.assert_close(terms["relative"], expected)
