"""Colour, blur and JPEG on tensors, beside numpy, SciPy and Pillow."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from metricanything.data.augment import Augmentation, random_colours
from metricanything.data.photometric import blur, develop, jpeg, recolour


@pytest.fixture
def picture() -> NDArray[np.uint8]:
    """80 x 112 pixels with edges, gradients and some grain."""
    rng = np.random.default_rng(0)
    v, u = np.mgrid[:80, :112]
    base = np.stack([40 + u, 60 + 2 * v, 120 + 60 * np.sin(u / 9)], axis=-1)
    base[20:50, 30:70] = (220, 40, 60)
    return np.clip(base + rng.normal(0, 5, base.shape), 0, 255).astype(np.uint8)


def batch_of(*pictures: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def test_recolour_is_the_formula(picture: NDArray[np.uint8]) -> None:
    gamma, gain, saturation = 1.3, np.array([1.1, 0.9, 1.2]), 0.6
    x = (picture.astype(np.float64) / 255) ** gamma * gain
    grey = x.mean(axis=-1, keepdims=True)
    expected = np.clip(grey + (x - grey) * saturation, 0, 1)
    parameters = torch.tensor([[1.0, 1, 1, 1, 1], [gamma, *gain, saturation]], dtype=torch.float32)
    same, changed = recolour(batch_of(picture, picture), parameters).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(same, picture / 255, atol=1e-6)
    np.testing.assert_allclose(changed, expected, atol=1e-6)


def test_blur_is_gaussian(picture: NDArray[np.uint8]) -> None:
    """Each image by its own sigma; the kernel is cut at three times the largest of the batch."""
    x = batch_of(picture, picture).float() / 255
    for sigma, result in zip((0.6, 1.7), blur(x, torch.tensor([0.6, 1.7])), strict=True):
        expected = gaussian_filter(picture / 255, (sigma, sigma, 0), mode="nearest", truncate=8)
        assert np.abs(result.permute(1, 2, 0).numpy() - expected).max() < 3e-3
    tiny = torch.rand(1, 3, 2, 3)
    assert blur(tiny, torch.tensor([5.0])).shape == tiny.shape


@pytest.mark.parametrize("quality", [20, 50, 75, 95])
def test_jpeg_is_pillows(picture: NDArray[np.uint8], quality: int) -> None:
    """Decoded pixels differ by rounding, far less than by the compression itself; so at sizes of partial blocks."""
    for image in (picture, picture[:71, :101]):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
        expected = np.asarray(Image.open(buffer)).astype(float)
        result = 255 * jpeg(batch_of(image).float() / 255, torch.tensor([float(quality)]))[0].permute(1, 2, 0).numpy()
        assert np.abs(result - expected).mean() < 0.3 * np.abs(image - expected).mean()
        assert np.abs(result - expected).mean() < 1.0


def test_jpeg_quality_is_each_images_own(picture: NDArray[np.uint8]) -> None:
    x = batch_of(picture, picture).float() / 255
    together = jpeg(x, torch.tensor([30.0, 90.0]))
    for i, quality in enumerate((30.0, 90.0)):
        torch.testing.assert_close(together[i : i + 1], jpeg(x[:1], torch.tensor([quality])))
    assert (together[0] - x[0]).abs().mean() > 1.2 * (together[1] - x[1]).abs().mean()


def test_develop_changes_those_with_parameters(picture: NDArray[np.uint8]) -> None:
    images = batch_of(*[picture] * 4)
    plain = [1.0, 1, 1, 1, 1]
    parameters = torch.tensor([[*plain, 0, 0], [*plain, 1.5, 0], [*plain, 0, 40], [*plain, 1.5, 40]])
    result, x = develop(images, parameters), images[:1].float() / 255
    torch.testing.assert_close(result[:1], x)
    blurred = blur(x, torch.tensor([1.5]))
    torch.testing.assert_close(result[1:2], blurred)
    torch.testing.assert_close(result[2:3], jpeg(x, torch.tensor([40.0])))
    torch.testing.assert_close(result[3:4], jpeg(blurred, torch.tensor([40.0])))
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert images.dtype == torch.uint8


def test_drawn_parameters_stay_in_their_ranges() -> None:
    a = Augmentation(blur=0.3, jpeg=0.5, blur_sigma=(0.5, 1.0), jpeg_quality=(40, 60))
    drawn = np.stack([random_colours(np.random.default_rng(seed), a) for seed in range(400)])
    assert np.abs(np.log(drawn[:, 0])).max() <= 0.3
    assert np.abs(np.log(drawn[:, 1:4])).max() <= 0.35
    assert 0.5 <= drawn[:, 4].min() <= drawn[:, 4].max() <= 1.3
    for column, (low, high), share in ((5, (0.5, 1.0), 0.3), (6, (40, 60), 0.5)):
        used = drawn[:, column] > 0
        assert used.mean() == pytest.approx(share, abs=0.08)
        assert low <= drawn[used, column].min() <= drawn[used, column].max() <= high
    # One probability does not change what another setting draws.
    other = np.stack([random_colours(np.random.default_rng(seed), Augmentation(blur=1.0)) for seed in range(400)])
    np.testing.assert_array_equal(drawn[:, :5], other[:, :5])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_same_on_a_gpu(picture: NDArray[np.uint8]) -> None:
    a = Augmentation(blur=0.5, jpeg=0.0)
    parameters = torch.from_numpy(np.stack([random_colours(np.random.default_rng(seed), a) for seed in range(6)]))
    images = batch_of(*[picture] * 6)
    torch.testing.assert_close(develop(images.cuda(), parameters).cpu(), develop(images, parameters), atol=1e-5, rtol=0)
