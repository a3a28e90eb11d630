"""From seeds to scenes: which kind of place, its solids relative to the camera, and a camera of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metricanything.core.camera import Camera
from metricanything.sources.procedural.draws import Draws, Floats
from metricanything.sources.procedural.indoor import pile, room
from metricanything.sources.procedural.layout import Layout, look_at
from metricanything.sources.procedural.near import near
from metricanything.sources.procedural.outdoor import country, street
from metricanything.sources.procedural.parts import MATERIAL
from metricanything.sources.procedural.shapes import BOX, CYLINDER, ELLIPSOID, PLANE
from metricanything.sources.procedural.terrain import NODES
from metricanything.sources.procedural.trace import Primitives

#: Kinds of scenes and their shares.
LAYOUTS: dict[str, tuple[Callable[[Draws], Layout], float]] = {
    "room": (room, 0.42),
    "street": (street, 0.20),
    "country": (country, 0.13),
    "pile": (pile, 0.09),
    "near": (near, 0.16),
}
_CLEARANCE = 0.15  # metres around the camera from which loose things are removed


@dataclass(frozen=True)
class Scenes:
    """B scenes with N solids at most; metres relative to the camera, axes of the world (z up), linear light.

    `prims`; `material` (B, N, M); `lights` (B, 2, 7), `ambient`, `sky` (B, 2, 3), `cloud`, `haze` (B,): as in
    `layout.Layout`; `terrain` (S,): which scenes have a height field, `field` (S, G, G) and `ground` (S, M) of those;
    `rotation` (B, 3, 3): world from camera axes; `film` (B, 9): exposure, white balance (3), vignetting, noise,
    contrast, blur, seed of the noise; `eye` (B, 3) float64: the camera in the world; `kind`: names of the layouts.
    """

    prims: Primitives
    material: Tensor
    lights: Tensor
    ambient: Tensor
    sky: Tensor
    cloud: Tensor
    haze: Tensor
    terrain: Tensor
    field: Tensor
    ground: Tensor
    rotation: Tensor
    film: Tensor
    eye: Floats
    kind: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.kind)

    def part(self, start: int, stop: int) -> Scenes:
        """Scenes `start` to `stop` alone."""
        inside = (self.terrain >= start) & (self.terrain < stop)
        prims = {f.name: getattr(self.prims, f.name)[start:stop] for f in fields(self.prims)}
        most = max(int((prims["kind"] >= 0).sum(1).max()), 1)
        names = ("material", "lights", "ambient", "sky", "cloud", "haze", "rotation", "film", "eye", "kind")
        cut = {name: getattr(self, name)[start:stop] for name in names}
        cut["material"] = cut["material"][:, :most]
        return Scenes(
            prims=Primitives(**{name: value[:, :most].contiguous() for name, value in prims.items()}),
            terrain=self.terrain[inside] - start, field=self.field[inside], ground=self.ground[inside], **cut,
        )  # fmt: skip

    def to(self, device: torch.device) -> Scenes:
        """The same scenes on another device."""
        moved = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "prims"}
        moved = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in moved.items()}
        prims = {f.name: getattr(self.prims, f.name).to(device) for f in fields(self.prims)}
        return replace(self, prims=Primitives(**prims), **moved)


def compose(seeds: Sequence[int]) -> Scenes:
    """The scenes of these seeds, on the CPU; each depends on its seed alone."""
    draw = Draws(seeds, salt=1)
    edges = np.cumsum([share for _, share in LAYOUTS.values()])
    which = np.searchsorted(edges / edges[-1], draw(0, 1), side="right")
    pieces = []
    for number, (make, _) in enumerate(LAYOUTS.values()):
        index = np.nonzero(which == number)[0]
        if len(index):
            layout = make(Draws(draw.seeds[index], salt=10 + number))
            pieces.append(
                (index, layout, relative(layout), look_at(Draws(draw.seeds[index], 2), layout.eye, layout.target))
            )
    b, n = len(draw), max(piece[2]["kind"].shape[1] for piece in pieces)

    def gather(values: Sequence[NDArray[np.generic]], empty: float = 0.0, pad: bool = False) -> Tensor:
        """One tensor of the whole batch from the layouts' arrays; `pad` fills up the number of solids."""
        tail = (n, *values[0].shape[2:]) if pad else values[0].shape[1:]
        whole = np.full((b, *tail), empty, dtype=np.int64 if values[0].dtype == np.int64 else np.float32)
        for (index, *_), value in zip(pieces, values, strict=True):
            if pad:
                whole[index, : value.shape[1]] = value
            else:
                whole[index] = value
        return torch.from_numpy(whole)

    solids = {
        name: gather([p[2][name] for p in pieces], -1 if name == "kind" else 0, pad=True) for name in pieces[0][2]
    }
    layouts = [piece[1] for piece in pieces]
    with_field = [(index, layout) for index, layout, *_ in pieces if layout.field is not None]
    field: Floats = np.zeros((0, NODES, NODES))
    ground: Floats = np.zeros((0, len(MATERIAL)))
    if with_field:
        (index, layout) = with_field[0]
        assert layout.field is not None and layout.ground is not None
        field, ground = layout.field - layout.eye[:, 2, None, None], layout.ground
    eye = np.zeros((b, 3))
    for index, layout, *_ in pieces:
        eye[index] = layout.eye
    material = solids.pop("material")
    return Scenes(
        Primitives(**solids), material, gather([_lights(layout) for layout in layouts]),
        gather([x.ambient for x in layouts]), gather([x.sky for x in layouts]), gather([x.cloud for x in layouts]),
        gather([x.haze for x in layouts]),
        torch.from_numpy(with_field[0][0] if with_field else np.zeros(0, np.int64)),
        torch.from_numpy(field).float(), torch.from_numpy(ground).float(),
        gather([piece[3] for piece in pieces]), _film(seeds), eye, tuple(list(LAYOUTS)[i] for i in which),
    )  # fmt: skip


def _lights(layout: Layout) -> Floats:
    lights: Floats = np.array(layout.lights)
    lights[..., :3] -= np.where(lights[..., 3:4] < 0.5, layout.eye[:, None], 0.0)
    return lights


def relative(layout: Layout) -> dict[str, NDArray[np.generic]]:
    """A layout's solids relative to its camera, loose ones around the camera left out, present ones first."""
    kind, centre, half, rotation, material, structure = layout.parts.arrays()
    centre = centre - layout.eye[:, None]
    turn = np.swapaxes(rotation, -1, -2)  # object from world
    shift = -(turn @ centre[..., None])[..., 0]
    close = np.all(np.abs(shift) < half + _CLEARANCE, axis=-1)
    kind = np.where(close & ~structure, -1, kind)
    axis_length, radius = _capsule(kind, half)
    columns = {
        "kind": kind,
        "object_from_world": np.concatenate([turn, shift[..., None]], -1) / half[..., None],
        "half": half,
        "centre": centre,
        "axis": (rotation @ axis_length[..., None])[..., 0],
        "radius": radius,
        "material": material,
    }
    order = np.argsort(kind < 0, axis=1, kind="stable")[:, : int((kind >= 0).sum(1).max())]
    return {
        name: np.take_along_axis(column, order.reshape(*order.shape, *(1,) * (column.ndim - 2)), axis=1)
        for name, column in columns.items()
    }


def _capsule(kind: NDArray[np.int64], half: Floats) -> tuple[Floats, Floats]:
    """Half axis (B, N, 3), in the solid's own frame, and radius (B, N) of a capsule around each solid."""
    ordered = np.sort(half, axis=-1)
    small, middle, big = np.moveaxis(ordered, -1, 0)
    longest = (np.arange(3) == np.argmax(half, axis=-1)[..., None]).astype(float)
    box_radius = np.hypot(small, middle)
    slim = half[..., 2] >= half[..., 0]  # cylinders: radius in x and y
    length = np.where(kind == BOX, big, np.where(kind == ELLIPSOID, big - middle, np.where(slim, half[..., 2], 0.0)))
    radius = np.where(kind == BOX, box_radius, np.where(kind == ELLIPSOID, middle, half[..., 0]))
    radius = np.where((kind == CYLINDER) & ~slim, np.hypot(half[..., 0], half[..., 2]), radius)
    axis = np.where((kind == CYLINDER)[..., None], [0.0, 0.0, 1.0], longest) * length[..., None]
    plane = kind == PLANE
    return np.where(plane[..., None], 0.0, axis), np.where(plane, 1e4, radius)


def _film(seeds: Sequence[int]) -> Tensor:
    draw = Draws(seeds, salt=3)
    columns = [draw.log(0.6, 1.6), draw.log(0.88, 1.14), np.ones(len(draw)), draw.log(0.85, 1.18), draw(0, 0.5) ** 2,
               draw.log(0.002, 0.02), draw(0.95, 1.5), draw(0, 0.3), draw.pick(range(1 << 16))]  # fmt: skip
    return torch.from_numpy(np.stack(columns, -1)).float()


def random_cameras(seeds: Sequence[int], width: int, height: int) -> list[Camera]:
    """One camera per seed for images of `width` x `height` pixels.

    Horizontal fields of view from 35 to 110 degrees, pixels not quite square, the principal point off centre (far off
    in every tenth, as in a crop); every sixth has OpenCV distortion and every twentieth is a fisheye,
    of which one in hundreds shows the rim of its image circle (NaN rays).
    """
    draw = Draws(seeds, salt=4)
    fov, aspect, style = np.deg2rad(draw(35, 110)), draw.log(0.985, 1.015), draw(0, 1)
    offset = draw(-1, 1, 2) * np.where(draw.chance(0.1), 0.2, 0.03)[:, None]
    strength, shape = draw(-0.12, 0.05), draw(-1, 1, 3)
    cameras = []
    for i in range(len(draw)):
        cx, cy = width * (0.5 + offset[i, 0]), height * (0.5 + offset[i, 1])
        f = width / 2 / np.tan(fov[i] / 2)
        if style[i] < 0.05:  # nearly equidistant, with a longer side of 95 to 140 degrees
            f = max(width, height) / 2 / (0.6 * fov[i] / 2 + 0.64)
            k = shape[i] * [0.03, 0.006, 0.001]
            cameras.append(Camera.kannala_brandt(f, f * aspect[i], cx, cy, width, height, distortion=(*k, 0.0)))
        elif style[i] < 0.05 + 1 / 6:
            corner2 = ((0.5 + abs(offset[i, 0])) * width / f) ** 2 + ((0.5 + abs(offset[i, 1])) * height / f) ** 2
            k1 = strength[i] / corner2  # displacement of the corner: -12 to +5 % of its radius, always invertible
            p = 0.003 * shape[i, :2] / max(1.0, corner2)
            cameras.append(Camera.opencv(f, f * aspect[i], cx, cy, width, height, distortion=(k1, 0.0, *p)))
        else:
            cameras.append(Camera.pinhole(f, f * aspect[i], cx, cy, width, height))
    return cameras
