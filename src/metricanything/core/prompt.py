"""SparsePrompt: metric points on an image, whatever sensor they came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metricanything.core.camera import Camera
from metricanything.core.errors import InputError
from metricanything.core.geometry import pixel_index, scatter_min, visible_points

Unit = Literal["m", "cm", "mm"]
_METRES = {"m": 1.0, "cm": 0.01, "mm": 0.001}
_FAR = 200.0  # metres; no common depth sensor has a median this far away


@dataclass(frozen=True)
class SparsePrompt:
    """Measured depths at pixels: `uv` float32 (N, 2) pixels, `depth` float32 (N,) z-depth in metres.

    The pixels refer to a grid of `width` x `height` that shows the same view as the image; it may have another
    resolution (a ToF sensor's own grid, say). `sigma` float32 (N,) is the standard deviation in metres, or None.
    Make one with `from_depth`, `from_points` or `from_pixels`; each raises InputError when it would be empty.
    """

    uv: NDArray[np.float32]
    depth: NDArray[np.float32]
    height: int
    width: int
    sigma: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        n = len(self.depth)
        if self.uv.shape != (n, 2) or self.depth.shape != (n,):
            raise InputError(f"prompt: uv must be (N, 2) and depth (N,), got {self.uv.shape} and {self.depth.shape}")
        if self.sigma is not None and self.sigma.shape != (n,):
            raise InputError(f"prompt: sigma must be ({n},) like the depth, got {self.sigma.shape}")
        if n and not (np.isfinite(self.depth).all() and (self.depth > 0).all()):
            raise InputError("prompt: depths must be finite and positive; leave unknown points out")

    def __len__(self) -> int:
        return len(self.depth)

    @classmethod
    def from_depth(cls, depth: ArrayLike, *, unit: Unit | None = None, sigma: ArrayLike | None = None) -> SparsePrompt:
        """The measured pixels of a depth map (h, w) of any resolution; 0, negative, NaN and inf are no measurement.

        The map is taken as metres; state `unit` for another. Without a stated unit, a map whose values look like
        millimetres or another raw unit is refused (InputError), because a silent factor of 1000 is the commonest
        mistake with depth.
        """
        values = _numbers(depth, "a depth map")
        if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
            values = values.reshape(values.shape[:2] if values.shape[2] == 1 else values.shape[1:])
        if values.ndim != 2:
            raise InputError(f"prompt: a depth map must be (h, w), got shape {values.shape}")
        metres = _to_metres(values, unit)
        rows, columns = np.nonzero(np.isfinite(metres) & (metres > 0))
        if len(rows) == 0:
            raise InputError("prompt: the depth map holds no measurement (all values are 0, NaN or inf)")
        uv = np.stack([columns, rows], axis=-1).astype(np.float32) + np.float32(0.5)
        spread = _sigma(sigma, values.shape)
        height, width = values.shape
        return cls(uv, metres[rows, columns], height, width, None if spread is None else spread[rows, columns])

    @classmethod
    def from_points(
        cls,
        points: ArrayLike,
        camera: Camera,
        *,
        cam_from_points: ArrayLike | None = None,
        unit: Unit | None = None,
        sigma: ArrayLike | None = None,
        remove_hidden: bool = True,
    ) -> SparsePrompt:
        """Points (N, 3) of a LiDAR, radar or SfM model seen by `camera`.

        `cam_from_points` is the (4, 4) or (3, 4) transform from the frame of the points to the camera frame (identity
        when None). Points behind the camera or outside the image are left out; `remove_hidden` also leaves out those
        that shine through a nearer surface (`geometry.visible_points`).
        """
        if not isinstance(camera, Camera):
            raise InputError(f"prompt: the camera must be a Camera, got {type(camera).__name__}")
        xyz = _numbers(points, "points").astype(np.float64)
        if xyz.ndim != 2 or xyz.shape[1] != 3:
            hint = "; pass x, y, z alone: points[:, :3]" if xyz.ndim == 2 and xyz.shape[1] > 3 else ""
            raise InputError(f"prompt: points must be (N, 3), got shape {xyz.shape}{hint}")
        xyz = xyz * _metres(unit)
        if cam_from_points is not None:
            transform = _numbers(cam_from_points, "cam_from_points").astype(np.float64)
            if transform.shape not in ((4, 4), (3, 4)) or not np.isfinite(transform).all():
                raise InputError(f"prompt: cam_from_points must be a finite (4, 4) matrix, got shape {transform.shape}")
            xyz = xyz @ transform[:3, :3].T + transform[:3, 3]
        spread = _sigma(sigma, (len(xyz),))
        uv, z = camera.project(xyz), xyz[:, 2]
        with np.errstate(invalid="ignore"):
            keep = pixel_index(np.nan_to_num(uv, nan=-1.0), camera.height, camera.width)[1] & (z > 0)
        if not keep.any():
            raise InputError(
                f"prompt: none of the {len(xyz)} points projects into the image; check cam_from_points and the camera"
            )
        if unit is None:
            _refuse_raw_units(z[keep])
        index = np.flatnonzero(keep)
        if remove_hidden:
            index = index[visible_points(uv[index], z[index], camera.height, camera.width)]
        depth = z[index].astype(np.float32)
        return cls(
            uv[index].astype(np.float32),
            depth,
            camera.height,
            camera.width,
            None if spread is None else spread[index],
        )

    @classmethod
    def from_pixels(
        cls,
        uv: ArrayLike,
        depth: ArrayLike,
        size: tuple[int, int],
        *,
        unit: Unit | None = None,
        sigma: ArrayLike | None = None,
    ) -> SparsePrompt:
        """Depths (N,) at pixels `uv` (N, 2) of an image of `size` (height, width); unknown depths are left out.

        Raises InputError when a measured point lies outside the image.
        """
        pixels, values = _numbers(uv, "uv").astype(np.float32), _numbers(depth, "depths")
        if pixels.ndim != 2 or pixels.shape[1] != 2 or values.shape != (len(pixels),):
            raise InputError(f"prompt: uv must be (N, 2) and depth (N,), got {pixels.shape} and {values.shape}")
        try:
            height, width = (int(side) for side in size)
        except (TypeError, ValueError):
            raise InputError(f"prompt: size must be (height, width) in pixels, got {size!r}") from None
        spread = _sigma(sigma, values.shape)
        metres = _to_metres(values, unit)
        keep = np.isfinite(metres) & (metres > 0)
        if not keep.any():
            raise InputError("prompt: no point has a measurement (all depths are 0, NaN or inf)")
        inside = pixel_index(pixels, height, width)[1]
        outside = int((keep & ~inside).sum())
        if outside:
            raise InputError(
                f"prompt: {outside} of {len(pixels)} points lie outside the {width}x{height} image; "
                "uv is (column, row) in pixels of the image: drop them or scale them"
            )
        return cls(pixels[keep], metres[keep], height, width, None if spread is None else spread[keep])

    def rasterise(self, height: int, width: int) -> NDArray[np.float32]:
        """Depth map (height, width) float32 in metres, NaN where there is no point; where several fall, the nearest.

        Points are moved to the grid by scaling their pixel coordinates; depths are never interpolated.
        """
        scale = np.array([width / self.width, height / self.height], dtype=np.float64)
        return scatter_min(self.uv * scale, self.depth, height, width)

    def scaled(self, factor: float) -> SparsePrompt:
        """The same points with all depths (and sigmas) times `factor`."""
        sigma = None if self.sigma is None else self.sigma * np.float32(factor)
        return SparsePrompt(self.uv, self.depth * np.float32(factor), self.height, self.width, sigma)


def _numbers(value: ArrayLike, what: str) -> NDArray[Any]:
    """`value` as an array; raises InputError, naming `what`, for ragged lists, text and other things."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"prompt: {what} must be an array of numbers ({error})") from None
    # An empty list is float64 to numpy, and booleans are a mask that was passed by mistake.
    if array.dtype.kind not in "fiu":
        raise InputError(f"prompt: {what} must be numbers, got {array.dtype}")
    return array


def _metres(unit: Unit | None) -> float:
    if unit is not None and unit not in _METRES:
        raise InputError(f"prompt: unit {unit!r} is unknown; use 'm', 'cm' or 'mm'")
    return _METRES[unit or "m"]


def _sigma(sigma: ArrayLike | None, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
    """`sigma` as float32, checked to be of the shape of the depths before anything is picked from it."""
    if sigma is None:
        return None
    values = _numbers(sigma, "sigma").astype(np.float32)
    if values.shape != shape:
        raise InputError(f"prompt: sigma must be {shape} like the depth, got {values.shape}")
    return values


def _to_metres(values: NDArray[Any], unit: Unit | None) -> NDArray[np.float32]:
    metres: NDArray[np.float32] = np.asarray(values, dtype=np.float32) * np.float32(_metres(unit))
    if unit is None:
        known = values[np.isfinite(values) & (values > 0)] if values.dtype.kind == "f" else values[values > 0]
        _refuse_raw_units(known)
    return metres


def _refuse_raw_units(known: NDArray[Any]) -> None:
    """Raise InputError when positive depths look like a raw sensor unit instead of metres."""
    if known.size == 0:
        return
    median = float(np.median(known))
    whole = known.dtype.kind in "iu" or bool(np.all(known == np.round(known)))
    if median > _FAR or (whole and median > 20 and known.size > 1):
        raise InputError(
            f"prompt: depths do not look like metres (median {median:g}{', all whole' if whole else ''}); state their "
            "unit, 'mm' for millimetres, 'cm', or 'm' if they are metres (unit= in Python, --prompt-unit on the "
            "command line)"
        )
