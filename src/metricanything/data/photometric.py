"""Colour, blur and JPEG of a batch of images, on the device where it lies.

Parameters are drawn per sample on the CPU (`augment.random_colours`) and stay there: what is to be done is decided
without waiting for a device. The result is the same on every device, to rounding.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_BLOCK = 8

# Annex K of the JPEG standard (ITU-T T.81), which libjpeg scales by the quality.
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
# JFIF: Y, Cb, Cr of R, G, B; chroma around 128.
_YCC_FROM_RGB = ((0.299, 0.587, 0.114), (-0.168735892, -0.331264108, 0.5), (0.5, -0.418687589, -0.081312411))
_RGB_FROM_YCC = ((1.0, 0.0, 1.402), (1.0, -0.344136286, -0.714136286), (1.0, 1.772, 0.0))


def develop(image_B3HW: Tensor, parameters_BP: Tensor) -> Tensor:
    """Images float32 (B, 3, H, W) in [0, 1] of uint8 images.

    Their channels are last in memory, which is how convolutions are fastest on a CPU.

    `parameters_BP` float32 on the CPU: exponent, gains of red, green and blue, saturation, sigma of a Gaussian blur in
    pixels (0: none), JPEG quality (0: none).
    """
    image = recolour(image_B3HW, parameters_BP[:, :5])
    for change, values in ((blur, parameters_BP[:, 5]), (jpeg, parameters_BP[:, 6])):
        rows = values.nonzero()[:, 0]
        if len(rows):
            chosen = rows.to(image.device, non_blocking=True)
            image[chosen] = change(image[chosen], values[rows])
    return image


def recolour(image_B3HW: Tensor, parameters_B5: Tensor) -> Tensor:
    """Gamma, exposure with white balance, and saturation (about the mean of the channels) of uint8 images; float32.

    A table for the 256 values and one product per sample: a fifth of the time of powers of whole batches on a CPU.
    """
    batch, _, height, width = image_B3HW.shape
    gamma, gain_B3, saturation = parameters_B5[:, 0], parameters_B5[:, 1:4], parameters_B5[:, 4]
    value = torch.arange(256) / 255
    table_BV = (value ** gamma[:, None, None] * gain_B3[:, :, None]).flatten(1)
    mix_B33 = ((1 - saturation) / 3)[:, None, None] + torch.diag_embed(saturation[:, None].expand(-1, 3))
    device = image_B3HW.device
    table_BV, mix_B33 = (x.to(device, non_blocking=True) for x in (table_BV, mix_B33))
    channel = 256 * torch.arange(3, dtype=torch.int32, device=device)[:, None]
    # From numpy on a CPU: it asks for huge pages, and faults of small ones are a fifth of all the time to a batch.
    shape = (batch, height * width, 3)
    result = (
        torch.from_numpy(np.empty(shape, np.float32)) if device.type == "cpu" else torch.empty(shape, device=device)
    )
    for image, table, mix, out in zip(image_B3HW, table_BV, mix_B33, result, strict=True):
        index = image.contiguous().view(3, -1).int() + channel
        out.T.copy_((mix @ table.index_select(0, index.view(-1)).view(3, -1)).clamp_(0, 1))
    return result.view(batch, height, width, 3).permute(0, 3, 1, 2)


def blur(image_B3HW: Tensor, sigma_B: Tensor) -> Tensor:
    """Gaussian blur, each image by its own `sigma_B` > 0 pixels (on the CPU); borders are continued."""
    batch, channels, height, width = image_B3HW.shape
    radius = min(math.ceil(3 * float(sigma_B.max())), height - 1, width - 1)
    offset = torch.arange(-radius, radius + 1)
    kernel = torch.softmax(-(offset**2) / (2 * sigma_B[:, None] ** 2), dim=1).to(image_B3HW.device, non_blocking=True)
    weight = kernel.repeat_interleave(channels, dim=0)[:, None]
    x = F.pad(image_B3HW.reshape(1, batch * channels, height, width), (radius,) * 4, mode="replicate")
    x = F.conv2d(F.conv2d(x, weight[:, :, None], groups=len(weight)), weight[..., None], groups=len(weight))
    return x.view(batch, channels, height, width)


def jpeg(image_B3HW: Tensor, quality_B: Tensor) -> Tensor:
    """Images in [0, 1] after JPEG with 4:2:0 chroma, each at its own `quality_B` within 1 and 100 (on the CPU).

    Blocks are transformed, quantised and rounded as libjpeg does. Borders are continued to whole blocks.
    """
    _, _, height, width = image_B3HW.shape
    pixels = (image_B3HW * 255).round()
    padded = F.pad(pixels, (0, -width % 16, 0, -height % 16), mode="replicate")
    ycc = _mixed(padded, _YCC_FROM_RGB).round()  # to 8 bits, as libjpeg stores it; so too below
    luma = _quantised(ycc[:, :1] - 128, _steps(_LUMINANCE, quality_B))
    chroma = _quantised(F.avg_pool2d(ycc[:, 1:], 2).round(), _steps(_CHROMINANCE, quality_B))
    luma, chroma = luma.round(), chroma.round().clamp(-128, 127)
    chroma = F.interpolate(chroma, scale_factor=2.0, mode="bilinear", align_corners=False).round()
    rgb = _mixed(torch.cat([luma + 128, chroma], dim=1), _RGB_FROM_YCC)
    return rgb[:, :, :height, :width].round().clamp(0, 255) / 255


def _mixed(image_B3HW: Tensor, matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    return torch.einsum("ij,bjhw->bihw", torch.tensor(matrix, device=image_B3HW.device), image_B3HW)


def _steps(table: tuple[tuple[int, ...], ...], quality_B: Tensor) -> Tensor:
    """Quantisation steps (B, 8, 8) of a quality, as in libjpeg's jcparam.c."""
    quality = quality_B.round().clamp(1, 100)
    percent = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)
    return ((torch.tensor(table) * percent[:, None, None] + 50) / 100).floor().clamp(1, 255)


def _quantised(plane_BCHW: Tensor, steps_B88: Tensor) -> Tensor:
    """Planes whose blocks of 8 x 8 pixels have DCT coefficients that are whole steps."""
    order, place = torch.arange(_BLOCK).double()[:, None], torch.arange(_BLOCK).double()
    basis = (torch.cos((2 * place + 1) * order * math.pi / 16) / 2).float()
    basis[0] /= math.sqrt(2)
    basis = basis.to(plane_BCHW.device, non_blocking=True)
    steps = steps_B88.to(plane_BCHW.device, non_blocking=True)[:, None, None, None]
    batch, channels, height, width = plane_BCHW.shape
    blocks = plane_BCHW.reshape(batch, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    coefficients = (basis @ blocks @ basis.T / steps).round() * steps
    restored = basis.T @ coefficients @ basis
    return restored.transpose(3, 4).reshape(batch, channels, height, width)
