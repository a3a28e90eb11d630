"""Codecs of pictures, points and meshes: what is written comes back; whatever is damaged is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from expectations import assert_refused
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from metricanything.core import codecs
from metricanything.core.errors import InputError

examples = settings(
    deadline=None, max_examples=30, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


# ---------------------------------------------------------------- images


def picture(height: int = 24, width: int = 32) -> np.ndarray:
    v, u = np.mgrid[:height, :width]
    return np.stack([u * 7 % 256, v * 9 % 256, (u + v) * 4 % 256], axis=-1).astype(np.uint8)


@examples
@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_png_image_is_exact(tmp_path: Path, image: np.ndarray) -> None:
    np.testing.assert_array_equal(codecs.decode_image(codecs.encode_png(image), "memory"), image)
    codecs.write_image(tmp_path / "a.png", image)
    np.testing.assert_array_equal(codecs.read_image(tmp_path / "a.png"), image)


def test_jpeg_image_is_close(tmp_path: Path) -> None:
    v, u = np.mgrid[:64, :64]
    smooth = np.stack([u * 3, v * 3, 255 - u - v], axis=-1).astype(np.uint8)
    for name in ("a.jpg", "a.JPEG"):
        codecs.write_image(tmp_path / name, smooth)
        assert np.abs(codecs.read_image(tmp_path / name).astype(int) - smooth).mean() < 2
    assert len(codecs.encode_jpeg(picture(), quality=30)) < len(codecs.encode_jpeg(picture(), quality=95))


def test_images_that_cannot_be_written(tmp_path: Path) -> None:
    assert_refused(lambda: codecs.write_image(tmp_path / "a.gif", picture()), "a.gif", ".png")
    for bad in (picture().astype(np.float32), picture()[..., 0], np.zeros((0, 4, 3), np.uint8)):
        assert_refused(lambda bad=bad: codecs.write_image(tmp_path / "a.png", bad), "uint8")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    """The stored picture is made so that a viewer that follows the tag shows `upright` (Exif 2.3, table of 0x0112)."""
    upright = picture()
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),  # to be turned 90 degrees clockwise
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(codecs.read_image(tmp_path / "a.png"), upright)


def test_every_pillow_mode_becomes_rgb(tmp_path: Path) -> None:
    rgb = Image.fromarray(picture())
    grey = np.asarray(rgb.convert("L"))
    for mode, suffix in (("L", "png"), ("LA", "png"), ("1", "png"), ("RGBA", "png"), ("P", "png"), ("CMYK", "jpg")):
        rgb.convert(mode).save(tmp_path / f"a.{suffix}")
        image = codecs.read_image(tmp_path / f"a.{suffix}")
        assert image.shape == (24, 32, 3)
        assert image.dtype == np.uint8
    rgb.convert("P").save(tmp_path / "t.png", transparency=bytes(range(256)))
    assert codecs.read_image(tmp_path / "t.png").shape == (24, 32, 3)
    # Alpha is dropped and the colours beneath are kept.
    translucent = np.dstack([picture(), np.full((24, 32), 10, np.uint8)])
    Image.fromarray(translucent).save(tmp_path / "a.png")
    np.testing.assert_array_equal(codecs.read_image(tmp_path / "a.png"), picture())
    # 16-bit grey is scaled, not clipped.
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "a.png")
    np.testing.assert_array_equal(codecs.read_image(tmp_path / "a.png"), np.repeat(grey[..., None], 3, axis=-1))
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "f.tiff")
    assert_refused(lambda: codecs.read_image(tmp_path / "f.tiff"), "floating-point")
    Image.fromarray(np.full((4, 4), 10**6, np.int32)).save(tmp_path / "i.tiff")
    assert_refused(lambda: codecs.read_image(tmp_path / "i.tiff"), "32-bit")


@pytest.mark.parametrize("encode", [codecs.encode_png, codecs.encode_jpeg])
def test_truncated_images_are_refused_or_whole(encode: Callable[[np.ndarray], bytes]) -> None:
    whole = encode(picture(100, 120))
    expected = codecs.decode_image(whole, "a")
    for cut in range(0, len(whole) - 1, max(1, len(whole) // 80)):
        try:
            np.testing.assert_array_equal(codecs.decode_image(whole[:cut], "photo"), expected)
            assert cut > len(whole) - 20
        except InputError as error:
            assert "photo" in str(error)
            assert "\n" not in str(error)


@examples
@given(st.binary(max_size=300))
def test_garbage_is_no_image(data: bytes) -> None:
    assert_refused(lambda: codecs.decode_image(data, "photo"), "photo")


def test_files_that_are_no_image(tmp_path: Path) -> None:
    assert_refused(lambda: codecs.read_image(tmp_path / "absent.jpg"), "absent.jpg", "no such file")
    assert_refused(lambda: codecs.read_image(tmp_path), str(tmp_path))
    (tmp_path / "a.jpg").write_bytes(b"")
    assert_refused(lambda: codecs.read_image(tmp_path / "a.jpg"), "a.jpg", "empty")
    (tmp_path / "a.jpg").write_text("<html>not found</html>")
    assert_refused(lambda: codecs.read_image(tmp_path / "a.jpg"), "a.jpg")


def photo(path: Path, f35: object = None, size: tuple[int, int] = (32, 24)) -> Path:
    exif = Image.Exif()
    if f35 is not None:
        exif.get_ifd(0x8769)[0xA405] = f35
    Image.new("RGB", size).save(path, exif=exif)
    return path


def test_exif_focal_length(tmp_path: Path) -> None:
    """A 36x24 mm frame filled by a 36x24-proportioned image: f35 mm are f35 / 36 of the width."""
    assert codecs.exif_focal_px(photo(tmp_path / "a.jpg", 28, (3600, 2400))) == pytest.approx(2800)
    # By the diagonal, whichever way the photo was held.
    assert codecs.exif_focal_px(photo(tmp_path / "a.jpg", 26, (300, 400))) == pytest.approx(26 * 500 / 1872**0.5)
    assert codecs.exif_focal_px(photo(tmp_path / "a.jpg")) is None
    assert codecs.exif_focal_px(photo(tmp_path / "a.jpg", 0)) is None
    codecs.write_image(tmp_path / "plain.png", picture())
    assert codecs.exif_focal_px(tmp_path / "plain.png") is None
    assert_refused(lambda: codecs.exif_focal_px(tmp_path / "absent.jpg"), "no such file")


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow says what is wrong with each
def test_damaged_exif_does_not_spoil_the_picture(tmp_path: Path) -> None:
    content = photo(tmp_path / "a.jpg", 28).read_bytes()
    start = content.index(b"Exif\x00\x00") + 6
    rng = np.random.default_rng(0)
    for _ in range(100):
        damaged = bytearray(content)
        for place in rng.integers(start, start + 40, 4):
            damaged[place] = rng.integers(256)
        (tmp_path / "b.jpg").write_bytes(damaged)
        assert sorted(codecs.read_image(tmp_path / "b.jpg").shape) == [3, 24, 32]
        focal = codecs.exif_focal_px(tmp_path / "b.jpg")
        assert focal is None or focal > 0


# ---------------------------------------------------------------- points and meshes


@examples
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(0, 20), st.just(3)), elements=st.floats(-1e6, 1e6, width=32)),
    st.booleans(),
)
def test_ply_round_trip(tmp_path: Path, points: np.ndarray, coloured: bool) -> None:
    colours = np.random.default_rng(0).integers(0, 256, points.shape).astype(np.uint8) if coloured else None
    codecs.write_ply(tmp_path / "a.ply", points, colours)
    result, painted = codecs.read_ply(tmp_path / "a.ply")
    np.testing.assert_array_equal(result, points)
    assert result.dtype == np.float32
    if colours is None:
        assert painted is None
    else:
        np.testing.assert_array_equal(painted, colours)


def test_ply_leaves_out_unknown_points(tmp_path: Path) -> None:
    points = np.array([[1, 2, 3], [np.nan, 0, 1], [4, 5, np.inf]], np.float32)
    colours = np.arange(9, dtype=np.uint8).reshape(3, 3)
    codecs.write_ply(tmp_path / "a.ply", points, colours)
    result, painted = codecs.read_ply(tmp_path / "a.ply")
    np.testing.assert_array_equal(result, [[1, 2, 3]])
    np.testing.assert_array_equal(painted, [[0, 1, 2]])
    for bad in (points[:, :2], points[0]):
        assert_refused(lambda bad=bad: codecs.write_ply(tmp_path / "b.ply", bad), "b.ply")
    assert_refused(lambda: codecs.write_ply(tmp_path / "b.ply", points, colours[:2]), "colours")


def test_damaged_ply_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    codecs.write_ply(path, np.ones((50, 3), np.float32))
    whole = path.read_bytes()
    for cut in range(0, len(whole), 13):
        path.write_bytes(whole[:cut])
        assert_refused(lambda: codecs.read_ply(path), str(path))
    path.write_bytes(whole.replace(b"vertex 50", b"vertex 99999999999"))
    assert_refused(lambda: codecs.read_ply(path), str(path))
    path.write_bytes(whole.replace(b"float z", b"float q"))
    assert_refused(lambda: codecs.read_ply(path), str(path))
    assert_refused(lambda: codecs.read_ply(tmp_path / "absent.ply"), "no such file")


def two_planes(height: int = 20, width: int = 30) -> np.ndarray:
    """Points of a wall at 4 m with its right half at 2 m."""
    v, u = np.mgrid[:height, :width] + 0.5
    z = np.where(u < width / 2, 4.0, 2.0)
    return np.stack([(u - width / 2) / 20 * z, (v - height / 2) / 20 * z, z], axis=-1).astype(np.float32)


def test_glb_is_a_textured_surface_without_bridges(tmp_path: Path) -> None:
    import trimesh

    points, mask = two_planes(), np.ones((20, 30), bool)
    mask[:4] = False
    points[10, 3] = np.nan
    codecs.write_glb(tmp_path / "a.glb", points, picture(20, 30), mask)
    scene = trimesh.load(tmp_path / "a.glb", process=False)
    (mesh,) = scene.geometry.values()
    corners = mesh.vertices[mesh.faces]
    # Every vertex is a given point in glTF's axes, and no triangle joins the two planes.
    given_points = points[mask & np.isfinite(points).all(-1)] * (1, -1, -1)
    assert np.abs(mesh.vertices[:, None] - given_points[None]).max(-1).min(1).max() < 1e-6
    assert np.ptp(corners[..., 2], axis=1).max() == 0
    assert set(np.unique(mesh.vertices[:, 2])) == {-4.0, -2.0}
    assert (mesh.face_normals[:, 2] > 0.99).all()  # the front of each triangle is towards the camera
    # The texture belongs to the pixel that the vertex came from.
    texture = np.asarray(mesh.visual.material.baseColorTexture.convert("RGB"))
    assert texture.shape == (20, 30, 3)
    x, y, z = (mesh.vertices * (1, -1, -1)).T
    np.testing.assert_allclose(mesh.visual.uv[:, 0] * 30, x / z * 20 + 15, atol=1e-3)
    np.testing.assert_allclose((1 - mesh.visual.uv[:, 1]) * 20, y / z * 20 + 10, atol=1e-3)
    # Both planes are there, all but their rims: the edge and mask rules drop one pixel.
    assert len(mesh.faces) > 0.6 * 2 * 15 * 28


def test_glb_without_surface_is_refused(tmp_path: Path) -> None:
    points = two_planes()
    assert_refused(
        lambda: codecs.write_glb(tmp_path / "a.glb", points, picture(20, 30), np.zeros((20, 30), bool)), "a.glb"
    )
    assert_refused(lambda: codecs.write_glb(tmp_path / "a.glb", points, picture(), np.ones((20, 30), bool)), "agree")
    assert os.listdir(tmp_path) == []
