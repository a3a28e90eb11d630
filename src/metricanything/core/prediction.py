"""Prediction: what a model says of one image; save it to every format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from metricanything.core.camera import Camera
from metricanything.core.errors import InputError
from metricanything.core.files import read_json, write_json

CameraSource = Literal["given", "sidecar", "exif", "model", "assumed"]
FORMATS = ("png16", "npy", "exr", "pfm", "ply", "glb", "colour", "normals")
_RECORD = "camera.json"


@dataclass(frozen=True)
class Prediction:
    """Metric depth of one image, with the camera that turns it into points.

    depth: float32 (H, W) z-depth in metres, of the size of the input image.
    points: float32 (H, W, 3) metres, camera frame (OpenCV).
    mask: bool (H, W), False = sky or not to be trusted.
    confidence: float32 (H, W), higher is better; None when the model states none.
    camera, camera_source: the camera used, and where it came from.
    image: uint8 (H, W, 3), the input, kept for coloured exports.
    normals: float32 (H, W, 3) unit surface normals in the camera frame, from models that predict them; else None.
    record: how the prediction was made (model, input size, prompt points, warnings).
    """

    depth: NDArray[np.float32]
    points: NDArray[np.float32]
    mask: NDArray[np.bool_]
    camera: Camera
    camera_source: CameraSource
    image: NDArray[np.uint8]
    confidence: NDArray[np.float32] | None = None
    normals: NDArray[np.float32] | None = None
    record: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: str | Path, formats: str | Sequence[str] = ("png16", "colour")) -> list[Path]:
        """Write the prediction into `folder` and return the files.

        Formats (one name or several): png16 (16-bit depth with its scale stated), npy, exr, pfm (float depth in
        metres), ply (coloured points), glb (textured mesh), colour (a picture of the depth), normals (a picture of the
        surface normals: (n + 1) / 2 as RGB; those of the depth where the model predicts none). `camera.json` is always
        written beside them; an earlier prediction in the folder is replaced. In png16, npy, exr and pfm, pixels
        outside the mask are unknown (0 or NaN).

        png16 has 1000 values per metre and reaches 65.5 m; where more than 1 % of the depths lie beyond, it has 256
        (255.9 m), and so on. Pixels beyond its reach are unknown in it, and `camera.json` counts them
        (`png16_dropped`); the float formats keep them. Raises InputError for an unknown format, a folder with a
        `camera.json` of another kind, and a mesh of an image that shows no surface.
        """
        from metricanything.core import codecs, colour

        folder, formats = Path(folder), [formats] if isinstance(formats, str) else list(formats)
        if (folder / _RECORD).exists() and not holds_prediction(folder):
            raise InputError(f"{folder}: holds a {_RECORD} that no prediction wrote; give another folder")
        unknown = [name for name in formats if name not in FORMATS]
        if unknown:
            raise InputError(f"output format {unknown[0]!r} is unknown; use {', '.join(FORMATS)}")
        depth = np.where(self.mask, self.depth, np.float32(np.nan))
        points, colours = self.points[self.mask], self.image[self.mask]
        fitted, scale = _fit_png16(depth) if "png16" in formats else (depth, None)
        writers = {
            "png16": ("depth.png", lambda path: codecs.write_depth_png16(path, fitted, scale)),
            "npy": ("depth.npy", lambda path: codecs.write_depth_npy(path, depth)),
            "exr": ("depth.exr", lambda path: codecs.write_depth_exr(path, depth)),
            "pfm": ("depth.pfm", lambda path: codecs.write_depth_pfm(path, depth)),
            "ply": ("points.ply", lambda path: codecs.write_ply(path, points, colours)),
            "glb": ("mesh.glb", lambda path: codecs.write_glb(path, self.points, self.image, self.mask)),
            "colour": ("depth_colour.png", lambda path: codecs.write_image(path, colour.colourise_depth(depth))),
            "normals": ("normals.png", lambda path: codecs.write_image(path, self._normal_picture())),
        }
        if holds_prediction(folder):  # files of two models must not lie side by side
            for file, _ in writers.values():
                (folder / file).unlink(missing_ok=True)
            (folder / _RECORD).unlink()
        written = []
        for name in dict.fromkeys(formats):
            file, write = writers[name]
            write(folder / file)
            written.append(folder / file)
        description = {"camera": self.camera.to_dict(), "camera_source": self.camera_source, **self.record}
        if "png16" in formats:
            description["png16_dropped"] = int(np.isnan(fitted).sum() - np.isnan(depth).sum())
        write_json(folder / _RECORD, description)
        return [*written, folder / _RECORD]

    def _normal_picture(self) -> NDArray[np.uint8]:
        """Normals as colours uint8 (H, W, 3), black where unknown."""
        from metricanything.core.geometry import depth_to_normals

        depth = np.where(self.mask, self.depth, np.float32(np.nan))
        normals = depth_to_normals(depth, self.camera) if self.normals is None else self.normals
        known = self.mask & np.isfinite(normals).all(axis=-1)
        return np.where(known[..., None], np.nan_to_num(normals) * 127.5 + 128, 0).clip(0, 255).astype(np.uint8)


def holds_prediction(folder: Path) -> bool:
    """Whether `Prediction.save` wrote into `folder`, by its `camera.json`; data sets have such files too."""
    try:
        record = read_json(folder / _RECORD)
    except InputError:
        return False
    return isinstance(record, dict) and {"camera", "camera_source"} <= record.keys()


def _fit_png16(depth: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """Depth without what a linear 16-bit PNG at the returned scale (values per metre) cannot hold.

    The scale is chosen for all depths but the farthest 1 %: a single far pixel, where the mask leaks into the sky, must
    not take the centimetres from all others.
    """
    from metricanything.core.codecs import png16_scale

    known = np.isfinite(depth)
    scale = png16_scale(np.percentile(depth[known], [99])) if known.any() else png16_scale(depth)
    beyond = known & (np.round(np.where(known, depth, 0) * np.float64(scale)) > 65535)
    return np.where(beyond, np.float32(np.nan), depth), scale
