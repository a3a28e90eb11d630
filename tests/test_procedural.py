"""The procedural renderer: exact depth for any camera, lossless culling, scenes that depend on seeds alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metricanything.core.camera import Camera
from metricanything.core.codecs import write_image
from metricanything.core.errors import InputError
from metricanything.sources.procedural import items, photos, render, scene, terrain, trace
from metricanything.sources.procedural.draws import Draws
from metricanything.sources.procedural.layout import Layout
from metricanything.sources.procedural.parts import MATERIAL, Parts
from metricanything.sources.procedural.photos import read_photos
from metricanything.sources.procedural.shapes import BOX, CYLINDER, ELLIPSOID, PLANE

W, H = 64, 48
CAMERAS = {
    "pinhole": Camera.pinhole(50, 52, 33, 23, W, H),
    "opencv": Camera.opencv(50, 50, 32, 24, W, H, distortion=(-0.1, 0.01, 0.002, -0.001)),
    "kannala_brandt": Camera.kannala_brandt(30, 30, 32, 24, W, H, distortion=(0.01, 0, 0, 0)),
    "equirectangular": Camera.equirectangular(W, H),
}


def only(monkeypatch: pytest.MonkeyPatch, *solids: tuple[int, tuple[float, ...], tuple[float, ...]]) -> None:
    """Make every scene consist of these solids (kind, centre, half), seen from the origin along +y."""

    def make(draw: Draws) -> Layout:
        b = len(draw)
        parts = Parts(b)
        look = np.zeros(len(MATERIAL))
        look[3], look[6:12] = 1.0, 0.5
        for kind, centre, half in solids:
            parts.add(kind, np.tile(np.array(centre, float), (b, 1, 1)), half, look, structure=True)
        up = np.tile([0.0, 0, 1, 1, 2, 2, 2], (b, 1))
        return Layout(parts, np.zeros((b, 3)), np.tile([0.0, 1, 0], (b, 1)), np.stack([up, 0 * up], 1),
                      np.full((b, 2, 3), 0.3), np.full((b, 2, 3), 0.5), np.zeros(b), np.zeros(b))  # fmt: skip

    monkeypatch.setattr(scene, "LAYOUTS", {"test": (make, 1.0)})


def rays_of(camera: Camera) -> np.ndarray:
    return camera.rays().astype(np.float64)


@pytest.mark.parametrize("name", CAMERAS)
def test_a_wall_has_its_depth_everywhere(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, (BOX, (0, 3.5, 0), (900, 0.5, 900)))
    camera = CAMERAS[name]
    out = render([1], W, H, cameras=[camera])
    z = rays_of(camera)[..., 2]
    depth = out.depth[0].numpy()
    assert np.all(np.isnan(depth[z <= 0])) and np.all(np.isfinite(depth[z > 0.05]))
    np.testing.assert_allclose(depth[z > 0.05], 3.0, rtol=1e-5)
    np.testing.assert_allclose(out.distance[0].numpy()[z > 0.05], 3.0 / z[z > 0.05], rtol=1e-5)
    normal = out.normal[0].numpy()[z > 0.05]
    np.testing.assert_allclose(normal, np.broadcast_to([0, 0, -1.0], normal.shape), atol=1e-4)


@pytest.mark.parametrize("name", CAMERAS)
def test_a_ball_has_its_depth_and_the_sky_is_infinite(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, (ELLIPSOID, (0, 4, 0), (1, 1, 1)))
    camera = CAMERAS[name]
    out = render([2], W, H, cameras=[camera])
    z = rays_of(camera)[..., 2]
    root = 1 - 16 * (1 - z * z)
    clear_hit, clear_miss = (root > 0.02) & (z > 0), (root < -0.02) & (z > 0)
    expected = (4 * z - np.sqrt(np.maximum(root, 0))) * z
    depth = out.depth[0].numpy()
    assert clear_hit.sum() > 10
    np.testing.assert_allclose(depth[clear_hit], expected[clear_hit], rtol=1e-5)
    assert np.all(depth[clear_miss] == np.inf)


def test_a_far_thin_cylinder_is_seen_end_on_and_from_the_side(monkeypatch: pytest.MonkeyPatch) -> None:
    camera = Camera.pinhole(2000, 2000, 32, 24, W, H)
    only(monkeypatch, (CYLINDER, (0, 60, 0), (0.5, 0.5, 30)))  # an upright pole: nearest line at 60 - 0.5 m
    depth = render([3], W, H, cameras=[camera]).depth[0].numpy()
    assert 0.2 < np.isfinite(depth).mean() < 0.9
    assert abs(depth[np.isfinite(depth)].min() - 59.5) < 0.02


def test_a_plane_below_gives_the_horizon(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, (PLANE, (0, 0, -1.5), (1, 1, 1)))
    out = render([4], W, H, cameras=[CAMERAS["equirectangular"]])
    world = rays_of(CAMERAS["equirectangular"]) @ out.world_from_cam[0, :3, :3].T
    down = world[..., 2] < -0.01
    np.testing.assert_allclose(out.distance[0].numpy()[down], -1.5 / world[..., 2][down], rtol=1e-4)
    assert np.all(np.isinf(out.distance[0].numpy()[world[..., 2] > 0]))


def test_a_height_field_is_met_on_its_surface_and_not_before() -> None:
    generator = torch.Generator().manual_seed(0)
    field = (
        torch.nn.functional.interpolate(
            torch.rand(2, 1, 24, 24, generator=generator), (terrain.NODES, terrain.NODES), mode="bicubic"
        )[:, 0]
        - torch.tensor([2.0, 3.0])[:, None, None]
    )
    ray = torch.nn.functional.normalize(torch.rand(400, 3, generator=generator) - torch.tensor([0.5, 0.5, 0.9]), dim=-1)
    number = torch.arange(400) % 2
    t = terrain.march(field, number, torch.zeros(400, 3), ray, torch.full((400,), 150.0))
    hit = t.isfinite()
    assert hit.float().mean() > 0.6
    point = ray[hit] * t[hit, None]
    height = terrain.heights(field, number[hit], point[:, 0], point[:, 1])
    assert ((point[:, 2] - height).abs() < 1e-3 * (1 + t[hit])).all()
    before = point[:, None] * torch.linspace(0.02, 0.93, 60)[:, None]
    flat = before.reshape(-1, 3)
    clearance = flat[:, 2] - terrain.heights(field, number[hit].repeat_interleave(60), flat[:, 0], flat[:, 1])
    assert (clearance > -0.02).float().mean() > 0.999


def test_shadows_fall_where_a_solid_hides_the_sun(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, (PLANE, (0, 0, -1), (1, 1, 1)), (BOX, (0, 0, 5), (2, 2, 0.5)))
    prims = scene.compose([5]).prims
    xy = torch.cartesian_prod(torch.linspace(-4, 4, 8), torch.linspace(-4, 4, 8)) + 0.013
    points = torch.cat([xy, torch.full((64, 1), -0.999)], 1).T[None, None]
    owner, wanted = torch.zeros(1, 1, 64, dtype=torch.int64), torch.ones(1, 1, 64, dtype=torch.bool)
    sun, lamp = torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[0.0, 0, 9, 0]])
    under = (xy.abs() < 2).all(1)
    assert torch.equal(trace.lit(points, owner, wanted, sun, prims, 64)[0, 0], ~under)
    wider = (xy.abs() < 2 * 10 / 3.5).all(1)  # the lamp's shadow grows from the box's top edge at 5.5 m
    assert torch.equal(trace.lit(points, owner, wanted, lamp, prims, 64)[0, 0], ~wider)
    below = torch.tensor([[0.0, 0, 3, 0]])  # a lamp under the box is hidden from nothing
    assert trace.lit(points, owner, wanted, below, prims, 64).all()


def test_shadows_darken_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, (PLANE, (0, 0, -1.5), (1, 1, 1)), (BOX, (0, 6, 2), (1, 1, 0.2)))
    camera = Camera.from_fov(90, W, H)
    out = render([6], W, H, cameras=[camera])
    points = rays_of(camera) * np.minimum(out.distance[0].numpy(), 1e4)[..., None] @ out.world_from_cam[0, :3, :3].T
    floor = np.abs(points[..., 2] + 1.5) < 1e-3
    shaded = floor & (np.abs(points[..., 0]) < 0.7) & (np.abs(points[..., 1] - 6) < 0.7)
    bright = floor & (np.abs(points[..., 0]) > 1.3) & (np.abs(points[..., 1] - 6) < 1)
    grey = out.image[0].numpy().mean(-1)
    assert shaded.sum() > 3 and bright.sum() > 3
    assert grey[shaded].mean() < 0.7 * grey[bright].mean()


def test_culling_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = [0, 1, 3, 11, 18, 20, 26]
    culled = render(seeds, W, H)
    assert set(culled.kind) == set(scene.LAYOUTS)

    def everything(beam: trace.Beam, prims: trace.Primitives) -> tuple[torch.Tensor, torch.Tensor]:
        b, n = prims.kind.shape
        t = beam.origin.shape[1]
        scene_, tile, number = (prims.kind >= 0)[:, None].expand(b, t, n).nonzero(as_tuple=True)
        return scene_ * t + tile, scene_ * n + number

    monkeypatch.setattr(trace, "candidates", everything)
    full = render(seeds, W, H)
    torch.testing.assert_close(culled.distance, full.distance, rtol=1e-5, atol=1e-5, equal_nan=True)
    assert (culled.image.int() - full.image.int()).abs().float().mean() < 0.02


def test_a_scene_depends_on_its_seed_alone() -> None:
    seeds = list(range(12))
    together, again = render(seeds, W, H), render(seeds, W, H)
    assert torch.equal(together.image, again.image)
    torch.testing.assert_close(together.depth, again.depth, rtol=0, atol=0, equal_nan=True)
    for i in (11, 4):
        alone = render([seeds[i]], W, H)
        assert alone.cameras[0] == together.cameras[i] and alone.kind[0] == together.kind[i]
        same = torch.isclose(alone.depth[0], together.depth[i], rtol=1e-4, equal_nan=True)
        assert same.float().mean() > 0.999
        assert ((alone.image[0].int() - together.image[i].int()).abs() <= 2).float().mean() > 0.999
    assert not torch.equal(together.image[0], together.image[1])


def test_every_seed_has_a_camera_of_its_own() -> None:
    cameras = scene.random_cameras(range(400), W, H)
    assert len({camera.params for camera in cameras}) == 400
    assert {camera.model for camera in cameras} == {"pinhole", "opencv", "kannala_brandt"}
    assert all(np.isfinite(camera.rays()).all() for camera in cameras)
    fov = [camera.fov_x for camera in cameras if camera.model == "pinhole"]
    assert min(fov) < 45 and max(fov) > 100 and min(fov) > 30 and max(fov) < 125


def test_scenes_are_varied_and_in_real_sizes() -> None:
    out = render(range(40), W, H)
    depth = out.depth.numpy()
    known = np.where(np.isfinite(depth), depth, np.nan)
    assert np.nanmin(known) > 0.01 and np.nanmax(known) <= 1000
    rooms = np.array([kind == "room" for kind in out.kind])
    middle = np.nanmedian(known.reshape(40, -1), axis=1)
    assert 0.3 < np.median(middle[rooms]) < 4 and 3 < np.median(middle[~rooms]) < 30
    assert np.isinf(depth[~rooms]).mean() > 0.05
    assert out.image.float().std((1, 2, 3)).min() > 4 and 60 < out.image.float().mean() < 180


def test_near_scenes_are_near(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scene, "LAYOUTS", {"near": scene.LAYOUTS["near"]})
    out = render(range(48), W, H)
    depth = out.depth.numpy()
    depth = np.where(np.isfinite(depth), depth, np.nan).reshape(48, -1)
    low, middle, high = np.percentile(np.nanmedian(depth, axis=1), [5, 50, 95])
    assert 0.15 < low < 0.5 and 0.5 < middle < 1.1 and high < 3
    assert np.nanmin(out.distance.numpy()) > 0.04  # the camera is in no wall, board or bin
    assert out.image.float().std((1, 2, 3)).min() > 15 and 60 < out.image.float().mean() < 180


def test_image_edges_lie_on_depth_edges() -> None:
    out = render(range(24), 96, 72)
    depth, grey = out.depth.numpy(), out.image.numpy().mean(-1)
    jump = np.abs(np.diff(np.log(np.minimum(depth, 1e4)), axis=2)) > 0.2
    step = np.abs(np.diff(grey, axis=2))
    assert step[jump].mean() > 3 * step[~jump & np.isfinite(depth[..., 1:])].mean()


def test_settings_of_a_training_program_do_not_matter() -> None:
    plain = render([3, 4], W, H)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            mixed = render([3, 4], W, H)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(plain.image, mixed.image)
    torch.testing.assert_close(plain.depth, mixed.depth, equal_nan=True)


def test_photographs_are_used_as_textures() -> None:
    red = np.zeros((40, 60, 3), np.uint8)
    red[..., 0] = 200
    plain, with_photo = (render(range(6), W, H, photos=photos) for photos in ((), (red,)))
    torch.testing.assert_close(plain.depth, with_photo.depth, equal_nan=True)

    def redness(image: torch.Tensor) -> float:
        channels = image.float().mean((0, 1, 2))
        return float(channels[0] / channels.sum())

    assert redness(with_photo.image) > redness(plain.image) + 0.05
    with pytest.raises(InputError, match="photo 0"):
        render([0], W, H, photos=[red.astype(np.float32)])


def test_the_frame_around_a_photograph_is_left_out(tmp_path: Path) -> None:
    pixels = np.full((480, 640, 3), 255, np.uint8)
    pixels[10:-10, 10:-10] = 90
    Image.fromarray(pixels).save(tmp_path / "framed.png")
    (photo,) = read_photos(tmp_path)
    assert (photo == 90).all()


def test_a_folder_of_photographs(tmp_path: Path) -> None:
    red = np.zeros((40, 60, 3), np.uint8)
    red[..., 0] = 200
    for name in ("b/image.jpg", "b/Depth.jpg", "prompts/0.png", "a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_image(tmp_path / name, red if name == "a.png" else red[..., ::-1])
    Image.fromarray(np.full((40, 60), 300, np.uint16)).save(tmp_path / "c.png")
    first, second = read_photos(tmp_path)
    assert first.shape == second.shape == (256, 256, 3)
    assert first.mean((0, 1)).argmax() == 0 and second.mean((0, 1)).argmax() == 2

    size = {"count": 2, "width": W, "height": H}
    plain, again, frames = (
        [frame for _, frame in items(photos=folder, **size).read()] for folder in (None, tmp_path, tmp_path)
    )
    for one, two, three in zip(plain, again, frames, strict=True):
        np.testing.assert_array_equal(one.depth, two.depth)
        np.testing.assert_array_equal(two.image, three.image)
        assert (one.image != two.image).any()
        assert "CC0" in one.licence and "CC0" not in two.licence and "photographs" in two.licence


def test_at_most_so_many_photographs_spread_over_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "MOST", 3)
    for k in range(7):
        write_image(tmp_path / f"{k}.png", np.full((8, 8, 3), 10 * k, np.uint8))
    assert [int(photo[0, 0, 0]) for photo in read_photos(tmp_path)] == [0, 20, 40]


def test_items_are_frames() -> None:
    frames = [frame for _, frame in items(count=3, seed=7, width=W, height=H).read()]
    assert [frame.name for frame in frames] == [f"procedural/00000{i}/0" for i in range(3)]
    for frame in frames:
        assert (frame.kind, frame.sensor, frame.scale, frame.source) == (
            "rendered",
            "synthetic",
            "metric",
            "procedural",
        )
        rotation = frame.world_from_cam[:3, :3]
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-5)
        assert np.linalg.det(rotation) > 0
    first = items(count=1, seed=7, width=W, height=H).load(0)
    np.testing.assert_allclose(first.depth, frames[0].depth, rtol=1e-4)
    other = items(count=1, seed=8, width=W, height=H).load(0)
    assert other.camera != first.camera


def test_bad_arguments_get_one_line() -> None:
    with pytest.raises(InputError, match="no files"):
        items("some/folder")
    with pytest.raises(InputError, match="negative"):
        items(count=-1)
    with pytest.raises(InputError, match="one camera"):
        render([0, 1], W, H, cameras=[CAMERAS["pinhole"]])
    with pytest.raises(InputError, match="seeds"):
        render([], W, H)


def test_a_bad_folder_of_photographs_gets_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent: no such folder"):
        items(photos=tmp_path / "absent")
    (tmp_path / "depth.png").write_text("")
    with pytest.raises(InputError, match="no photographs found; expected 8-bit pictures"):
        items(photos=tmp_path)
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(InputError, match=r"cut\.jpg"):
        items(photos=tmp_path)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_and_cpu_agree() -> None:
    cpu, gpu = render(range(16), W, H), render(range(16), W, H, device="cuda")
    same = torch.isclose(cpu.depth, gpu.depth.cpu(), rtol=1e-3, equal_nan=True)
    assert same.float().mean() > 0.998
    assert ((cpu.image.int() - gpu.image.cpu().int()).abs() <= 3).float().mean() > 0.99
