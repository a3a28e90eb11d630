"""The students: networks that are given an image alone, those of this project and the published ones."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from metricanything.data.batches import Batch, canonical
from metricanything.losses.combination import DepthWeights, depth_losses
from metricanything.losses.point_combination import PointWeights, point_losses
from metricanything.models.compact.pointmap import PointOutput
from metricanything.models.images import IMAGENET_MEAN, IMAGENET_STD, normalise
from metricanything.models.outputs import DepthOutput
from metricanything.models.pointmap import RawPointMap, Remap, remapped, resize_to_grid
from metricanything.training.teacher import depth_errors, depth_terms, mask_term

_FARTHEST = 1e-4  # canonical inverse depth: less is taken for this much where an error is stated


class Unprepared:
    """A task whose network is given nothing but the image."""

    def prepare(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The batch as it is."""
        return batch


@dataclass(frozen=True)
class DepthMapTask(Unprepared):
    """The teacher's losses without a prompt."""

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        """The image."""
        return (batch.image_B3HW,)

    def loss(self, output: DepthOutput, batch: Batch, weights: DepthWeights) -> dict[str, Tensor]:
        """Terms of `depth_terms`; only a metric label has the unit that an image can tell."""
        return depth_terms(output, batch, batch.metric_B, weights)

    def errors(self, output: DepthOutput, batch: Batch) -> dict[str, Tensor]:
        """`depth_errors` of all known pixels."""
        return depth_errors(output.log_c_B1HW, batch, _everywhere(batch))


@dataclass(frozen=True)
class InverseDepthTask(Unprepared):
    """The published depth map: canonical inverse depth C >= 0 itself, 0 of the sky, of normalised images."""

    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        """The image, normalised."""
        return (normalise(batch.image_B3HW, self.mean, self.std),)

    def loss(self, output: tuple[Tensor, Tensor | None], batch: Batch, weights: DepthWeights) -> dict[str, Tensor]:
        """Terms of `depth_losses` in C, as Depth Pro's."""
        return depth_losses(
            output[0],
            canonical(batch.depth_BHW, batch.focal_B),
            ~torch.isnan(batch.depth_BHW)[:, None],
            rendered_B=batch.trusted_B,
            metric_B=batch.metric_B,
            weights=weights,
        )

    def errors(self, output: tuple[Tensor, Tensor | None], batch: Batch) -> dict[str, Tensor]:
        """`depth_errors` of all known pixels."""
        return depth_errors(output[0].float().clamp_min(_FARTHEST).log(), batch, _everywhere(batch))


@dataclass(frozen=True)
class PointMapTask(Unprepared):
    """Affine points, mask and metric scale, with MoGe-2's losses."""

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        """The image."""
        return (batch.image_B3HW,)

    def loss(self, output: PointOutput, batch: Batch, weights: PointWeights) -> dict[str, Tensor]:
        """Terms of `point_losses`, and the mask's."""
        target, known = target_points(batch)
        terms = point_losses(
            output.points_B3HW,
            target,
            known,
            output.log_scale_B,
            batch.focal_B,
            exact_B=batch.trusted_B,
            sparse_B=batch.sparse_B,
            metric_B=batch.metric_B,
            weights=weights,
        )
        return {**terms, "mask": weights.mask * mask_term(output.mask_logit_B1HW, batch)}

    def errors(self, output: PointOutput, batch: Batch) -> dict[str, Tensor]:
        """The error of the aligned points and of the scale, the same for every image.

        Metric depth would need the camera's recovery.
        """
        weights = PointWeights(local=(0.0, 0.0, 0.0), edges=0.0, normals=0.0, scale=1.0, samples=24)
        terms = self.loss(output, batch, weights)
        return {name: terms[name].expand(len(batch)) for name in ("whole", "scale")}


@dataclass(frozen=True)
class RawPointsTask(Unprepared):
    """The published point map: what its heads say is resized to the label and remapped, then as `PointMapTask`."""

    patch: int = 14
    remap: Remap = "exp"
    points: PointMapTask = field(default_factory=PointMapTask)

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        """The image at the nearest size in whole patches, and its aspect ratio (B,)."""
        image = batch.image_B3HW
        height, width = image.shape[-2:]
        grid = (round(height / self.patch), round(width / self.patch))
        return resize_to_grid(image, grid, self.patch), torch.full_like(batch.focal_B, width / height)

    def loss(self, output: RawPointMap, batch: Batch, weights: PointWeights) -> dict[str, Tensor]:
        """Terms of `PointMapTask`; without the mask's where the layout has no mask head."""
        terms = self.points.loss(self._output(output, batch), batch, weights)
        return {name: term for name, term in terms.items() if name != "mask" or output.mask_logit_B1HW is not None}

    def errors(self, output: RawPointMap, batch: Batch) -> dict[str, Tensor]:
        """Errors of `PointMapTask`."""
        return self.points.errors(self._output(output, batch), batch)

    def _output(self, raw: RawPointMap, batch: Batch) -> PointOutput:
        def resized(x: Tensor) -> Tensor:
            return F.interpolate(x.float(), batch.image_B3HW.shape[-2:], mode="bilinear", align_corners=False)

        points = remapped(resized(raw.points_B3HW), self.remap)
        logit = torch.zeros_like(points[:, :1]) if raw.mask_logit_B1HW is None else resized(raw.mask_logit_B1HW)
        return PointOutput(points, logit, raw.log_scale_B.float())


def target_points(batch: Batch) -> tuple[Tensor, Tensor]:
    """True points (B, 3, H, W) in the label's unit, and where they are known, bool (B, 1, H, W)."""
    depth, rays = batch.depth_BHW[:, None], batch.plane_BHW2.permute(0, 3, 1, 2)
    known = torch.isfinite(depth) & torch.isfinite(rays).all(dim=1, keepdim=True)
    z = torch.where(known, depth, 1.0)
    return torch.cat([torch.where(known, rays, 0.0) * z, z], dim=1), known


def _everywhere(batch: Batch) -> Tensor:
    return torch.ones_like(batch.depth_BHW, dtype=torch.bool)
