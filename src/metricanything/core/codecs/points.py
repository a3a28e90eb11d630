"""Point clouds (PLY) and textured meshes (GLB)."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from metricanything.core.codecs.images import encode_jpeg
from metricanything.core.codecs.reading import reading
from metricanything.core.errors import InputError
from metricanything.core.files import atomic_path
from metricanything.core.geometry import depth_edges

Float32 = NDArray[np.float32]


def write_ply(path: str | Path, points: NDArray[Any], colours: NDArray[np.uint8] | None = None) -> None:
    """Write points (N, 3) in metres, with colours uint8 (N, 3) when given, as binary PLY; exact in float32.

    Points that are not finite are left out. Raises InputError when the shapes do not fit together.
    """
    from plyfile import PlyData, PlyElement

    if points.ndim != 2 or points.shape[1] != 3:
        raise InputError(f"{path}: points must be (N, 3), got {points.shape}")
    if colours is not None and (colours.shape != points.shape or colours.dtype != np.uint8):
        raise InputError(f"{path}: colours must be uint8 {points.shape}, got {colours.dtype} {colours.shape}")
    keep = np.isfinite(points).all(axis=1)
    fields = [("x", "<f4"), ("y", "<f4"), ("z", "<f4")]
    if colours is not None:
        fields += [("red", "u1"), ("green", "u1"), ("blue", "u1")]
    vertices = np.empty(int(keep.sum()), dtype=fields)
    for axis, name in enumerate("xyz"):
        vertices[name] = points[keep, axis]
    if colours is not None:
        for channel, name in enumerate(("red", "green", "blue")):
            vertices[name] = colours[keep, channel]
    with atomic_path(path) as temporary:
        PlyData([PlyElement.describe(vertices, "vertex")], text=False, byte_order="<").write(str(temporary))


def read_ply(path: str | Path) -> tuple[Float32, NDArray[np.uint8] | None]:
    """Points float32 (N, 3) and colours uint8 (N, 3), or None where the file has none in 8 bits, of a PLY file."""
    path = Path(path)
    with reading(path, "PLY file"):
        from plyfile import PlyData

        vertices = PlyData.read(str(path))["vertex"].data
        names = vertices.dtype.names or ()
        points = np.stack([vertices[axis] for axis in "xyz"], axis=-1).astype(np.float32)
        rgb = ("red", "green", "blue")
        if not all(name in names and vertices[name].dtype == np.uint8 for name in rgb):
            return points, None
        return points, np.stack([vertices[name] for name in rgb], axis=-1)


def write_glb(path: str | Path, points: NDArray[Any], image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> None:
    """Write the surface seen in an image as a GLB mesh with the image as its texture.

    points: (H, W, 3) metres, OpenCV camera frame (written in glTF's: y up, z backward); image: uint8 (H, W, 3);
    mask: bool (H, W). Neighbouring pixels are joined where the mask holds and the depth is no edge
    (`geometry.depth_edges`). Raises InputError when no four neighbours remain.
    """
    import trimesh
    from trimesh.visual.material import PBRMaterial
    from trimesh.visual.texture import TextureVisuals

    if image.shape != points.shape or mask.shape != points.shape[:2]:
        raise InputError(f"{path}: points {points.shape}, image {image.shape} and mask {mask.shape} must agree")
    keep = mask & np.isfinite(points).all(axis=-1)
    keep &= ~depth_edges(np.where(keep, points[..., 2], np.nan))
    faces, used = _grid_faces(keep)
    if len(faces) == 0:
        raise InputError(f"{path}: no surface to write: no four neighbouring pixels have a trusted, continuous depth")
    height, width = mask.shape
    rows, columns = np.divmod(used, width)
    # trimesh counts texture rows from the bottom.
    uv = np.stack([(columns + 0.5) / width, 1 - (rows + 0.5) / height], axis=-1)
    # A texture that already is a JPEG is stored as such: a fraction of the size of PNG.
    texture = Image.open(io.BytesIO(encode_jpeg(image)))
    material = PBRMaterial(baseColorTexture=texture, metallicFactor=0.0, roughnessFactor=1.0)
    mesh = trimesh.Trimesh(
        vertices=points.reshape(-1, 3)[used] * (1, -1, -1),
        faces=faces,
        visual=TextureVisuals(uv=uv, material=material),
        process=False,
    )
    with atomic_path(path) as temporary:
        mesh.export(str(temporary), file_type="glb")


def _grid_faces(keep: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Triangles (F, 3), two per quad of kept pixels, facing the camera, and the flat pixels (V,) they index."""
    width = keep.shape[1]
    quads = keep[:-1, :-1] & keep[1:, :-1] & keep[:-1, 1:] & keep[1:, 1:]
    rows, columns = np.nonzero(quads)
    corner = rows * width + columns
    left, right = (corner, corner + width, corner + width + 1), (corner, corner + width + 1, corner + 1)
    triangles = np.concatenate([np.stack(left, axis=-1), np.stack(right, axis=-1)])
    used, index = np.unique(triangles, return_inverse=True)
    return index.reshape(-1, 3).astype(np.int64), used
