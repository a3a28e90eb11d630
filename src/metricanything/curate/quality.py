"""What can be measured of one frame to tell whether it is fit for training: a record of numbers.

`measure` looks at a frame alone and, where there is one, at a neighbour with pose. What the numbers mean for a frame
is decided later and for all frames together (`curate.rules`), so that rules can change without reading images again.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import fft
from scipy.spatial import cKDTree

from metricanything.core.camera import Camera
from metricanything.core.frame import Frame
from metricanything.curate.edges import edge_agreement, grid_step, scan_agreement

Float32 = NDArray[np.float32]

_TOUCHING = 0.8  # share of measured pixels with a measured neighbour below which depth is a set of points
_STRAY = 1.08  # ratio to the depth of its neighbours beyond which a pixel strays from them
_STRAY_SPARSE = 1.2  # the same for points, which lie further apart
_AROUND = [(down, across) for down in (-1, 0, 1) for across in (-1, 0, 1) if down or across]
_POINTS, _STRAYS = 2000, 1000  # points looked at where all would be too many: in two views, and for strays
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_ROWS = 60  # rows of pixels that are enough to count what is all over the frame
_DARK, _BRIGHT = 8, 247
_FLAT = 2.0  # grey levels: images that vary less have no perceptual hash


@dataclass(frozen=True)
class Quality:
    """Numbers about one frame; NaN = not measurable, hash 0 = none.

    sky: share of pixels known to be beyond range. luminance: mean grey level 0..1. clipped: share of black or burnt
    pixels. sharpness: fine over coarse gradient energy, low where the image is blurred. edge_dx, edge_dy (pixels),
    edge_peak, edge_margin: see `curate.edges`. outliers: share of measured pixels far from the median of their
    neighbours. aspect: fx / fy. centre_x, centre_y: principal point as a share of the image size. view_depth: median
    |log ratio| of the depth seen from the neighbour to its own. view_photo: correlation of both images at the same
    points. hash: perceptual, of the image. depth_hash: of the exact bytes of the depth.
    """

    sky: float
    luminance: float
    clipped: float
    sharpness: float
    edge_dx: float
    edge_dy: float
    edge_peak: float
    edge_margin: float
    outliers: float
    aspect: float
    centre_x: float
    centre_y: float
    view_depth: float
    view_photo: float
    hash: int
    depth_hash: int

    #: Fields that are 64-bit unsigned integers; all others are floats.
    HASHES: ClassVar[tuple[str, ...]] = ("hash", "depth_hash")

    def to_dict(self) -> dict[str, Any]:
        """The numbers by name."""
        return asdict(self)


def measure(frame: Frame, neighbour: Frame | None = None) -> Quality:
    """The quality of a frame; `neighbour` is one of the same sequence, both with pose, for what two views can tell."""
    step = grid_step(frame.width)
    image = reduced(frame.image, step)
    grey = np.asarray(Image.fromarray(image).convert("L"))
    valid = frame.valid
    sparse = is_sparse(valid)
    edges = (
        scan_agreement(image, frame.depth, step) if sparse else edge_agreement(image, on_grid(frame.depth, step), step)
    )
    view_depth, view_photo = (np.nan, np.nan) if neighbour is None else _two_views(frame, neighbour)
    camera = frame.camera
    return Quality(
        sky=_share(frame.depth == np.inf),
        luminance=float(grey.mean()) / 255,
        clipped=_share((grey < _DARK) | (grey > _BRIGHT)),
        sharpness=_sharpness(grey),
        edge_dx=edges.dx,
        edge_dy=edges.dy,
        edge_peak=edges.peak,
        edge_margin=edges.margin,
        outliers=_outliers_sparse(frame.depth, valid) if sparse else _outliers_dense(frame.depth),
        aspect=camera.fx / camera.fy,
        centre_x=camera.cx / camera.width,
        centre_y=camera.cy / camera.height,
        view_depth=view_depth,
        view_photo=view_photo,
        hash=_perceptual_hash(grey),
        depth_hash=_bytes_hash(frame.depth) if valid.any() else 0,
    )


def is_sparse(valid: NDArray[np.bool_]) -> bool:
    """Whether the measured pixels (H, W) are points, such as a LiDAR's, rather than surfaces."""
    return bool(np.count_nonzero(valid[:, 1:] & valid[:, :-1]) < _TOUCHING * np.count_nonzero(valid))


def reduced(image: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """The image (h, w, 3) averaged over blocks of `step` pixels; what makes no whole block is left out."""
    if step == 1:
        return image
    width, height = image.shape[1] // step * step, image.shape[0] // step * step
    return np.asarray(Image.fromarray(image).reduce(step, (0, 0, width, height)))


def on_grid(depth: Float32, step: int) -> Float32:
    """The depth (h, w) in the middle of the blocks of `reduced`."""
    height, width = depth.shape[0] // step, depth.shape[1] // step
    return np.ascontiguousarray(depth[step // 2 :: step, step // 2 :: step][:height, :width])


def _share(marked: NDArray[np.bool_]) -> float:
    return float(np.count_nonzero(marked)) / marked.size


def _sharpness(grey: NDArray[np.uint8]) -> float:
    """Energy of differences over one pixel relative to that over four; 1/16 on ramps, up to 1 on noise."""
    if grey.shape[1] < 5:
        return float("nan")
    rows = grey[:: max(1, len(grey) // _ROWS)].astype(np.float32)
    fine, coarse = rows[:, 1:] - rows[:, :-1], rows[:, 4:] - rows[:, :-4]
    energy = float(np.vdot(coarse, coarse)) / coarse.size
    return float(np.vdot(fine, fine)) / fine.size / energy if energy > _FLAT**2 / 4 else float("nan")


# ---------------------------------------------------------------- depth that strays


def _outliers_dense(depth: Float32) -> float:
    """Share of the pixels, measured with all eight around them, at whose depth there are not even two of those.

    Leaves and railings of one pixel have such company along themselves, stray measurements have none. Of tall maps,
    rows evenly spaced are looked at.
    """
    rows, columns = np.arange(1, depth.shape[0] - 1, max(1, depth.shape[0] // _ROWS)), depth.shape[1] - 2
    log = [np.log(depth[rows + down]) for down in (-1, 0, 1)]
    here = log[1][:, 1:-1]
    least = second = np.full_like(here, np.inf)
    with np.errstate(invalid="ignore"):
        for down, across in _AROUND:
            off = np.abs(log[1 + down][:, 1 + across : 1 + across + columns] - here)
            least, second = np.minimum(least, off), np.minimum(second, np.maximum(least, off))
    known = np.isfinite(second)
    count = np.count_nonzero(known)
    return float(np.count_nonzero(known & (second > np.log(_STRAY)))) / count if count >= 20 else float("nan")


def _outliers_sparse(depth: Float32, valid: NDArray[np.bool_]) -> float:
    """Share of the points with not even two of their eight nearest in the image at their depth.

    Points of a LiDAR beside the camera lie on two surfaces at once near a silhouette, but on each they have company.
    """
    v, u = np.divmod(np.flatnonzero(valid), valid.shape[1])
    if len(v) < 20:
        return float("nan")
    places = np.stack([v, u], axis=-1).astype(np.float32)
    log = np.log(depth[v, u])
    chosen = np.arange(0, len(v), len(v) // _STRAYS + 1)
    nearest = cKDTree(places, balanced_tree=False, compact_nodes=False).query(places[chosen], k=9)[1][:, 1:]
    off = np.partition(np.abs(log[nearest] - log[chosen][:, None]), 1, axis=1)[:, 1]
    return float((off > np.log(_STRAY_SPARSE)).mean())


# ---------------------------------------------------------------- two views


def _two_views(frame: Frame, neighbour: Frame) -> tuple[float, float]:
    """Median |log ratio| of depths and correlation of grey levels where the frame's points fall into the neighbour."""
    if frame.world_from_cam is None or neighbour.world_from_cam is None:
        return float("nan"), float("nan")
    v, u = np.nonzero(frame.valid)
    every = len(v) // _POINTS + 1
    v, u = v[::every], u[::every]
    points = _points(frame.camera, u, v, frame.depth[v, u])
    there_from_here = np.linalg.inv(neighbour.world_from_cam) @ frame.world_from_cam
    there = points @ there_from_here[:3, :3].T + there_from_here[:3, 3]
    with np.errstate(invalid="ignore", divide="ignore"):
        uv = neighbour.camera.project(there)
        inside = (there[:, 2] > 0) & (uv >= 0).all(-1) & (uv < [neighbour.width, neighbour.height]).all(-1)
    if inside.sum() < 100:
        return float("nan"), float("nan")
    columns, rows = uv[inside].astype(np.int64).T
    seen = neighbour.depth[rows, columns]
    ratio = np.abs(np.log(there[inside, 2] / seen))
    ratio = ratio[np.isfinite(ratio)]
    here, other = frame.image[v[inside], u[inside]] @ _LUMA, neighbour.image[rows, columns] @ _LUMA
    varied = here.std() > _FLAT and other.std() > _FLAT
    return (
        float(np.median(ratio)) if len(ratio) >= 100 else float("nan"),
        float(np.corrcoef(here, other)[0, 1]) if varied else float("nan"),
    )


def _points(camera: Camera, u: NDArray[np.intp], v: NDArray[np.intp], depth: Float32) -> NDArray[np.float64]:
    rays = camera.unproject(np.stack([u, v], axis=-1) + 0.5).astype(np.float64)
    return rays / rays[:, 2:] * depth[:, None]


# ---------------------------------------------------------------- hashes


def _perceptual_hash(grey: NDArray[np.uint8]) -> int:
    """64 bits of the low frequencies of the image (the DCT hash of pHash); 0 where the image is flat."""
    small = np.asarray(Image.fromarray(grey).resize((32, 32), Image.Resampling.BOX), dtype=np.float32)
    if small.std() < _FLAT:
        return 0
    low = fft.dctn(small, norm="ortho")[:8, :8].ravel()
    bits = np.packbits(low > np.median(low[1:]))
    return int.from_bytes(bits.tobytes(), "big")


def _bytes_hash(depth: Float32) -> int:
    return int.from_bytes(hashlib.sha256(np.ascontiguousarray(depth).data).digest()[:8], "big")
