"""Camera: projection and its inverse agree, transforms commute with it, formulas match an independent statement."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metricanything.core.camera import PARAMETERS, Camera
from metricanything.core.errors import InputError

examples = settings(deadline=None, max_examples=40, derandomize=True)


def between(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False)


@st.composite
def cameras(draw: st.DrawFn, models: tuple[str, ...] = tuple(PARAMETERS)) -> Camera:
    """Cameras as they occur: lenses of real calibrations' size, principal point near the middle."""
    model = draw(st.sampled_from(models))
    width, height = draw(st.integers(16, 2000)), draw(st.integers(16, 2000))
    if model == "equirectangular":
        return Camera.equirectangular(width, height)
    size = max(width, height)
    focal = size * draw(between(0.7, 3.0))
    base = (focal, focal * draw(between(0.9, 1.1)), width * draw(between(0.4, 0.6)), height * draw(between(0.4, 0.6)))
    tangential = draw(between(-1e-3, 1e-3)), draw(between(-1e-3, 1e-3))
    if model == "opencv":
        # Barrel and pincushion lenses; weak enough at these angles that the whole image has a ray.
        k1, k2, k3 = draw(between(-0.15, 0.15)), draw(between(-0.02, 0.05)), draw(between(0.0, 0.01))
        return Camera.opencv(*base, width, height, distortion=(k1, k2, *tangential, k3))
    if model == "kannala_brandt":
        base = (size * draw(between(0.3, 1.0)), size * draw(between(0.3, 1.0)), *base[2:])
        k = draw(between(-0.02, 0.05)), draw(between(-0.005, 0.01)), draw(between(0, 0.002)), draw(between(0, 0.0005))
        return Camera.kannala_brandt(*base, width, height, distortion=k)
    if model == "thin_prism_fisheye":
        base = (size * draw(between(0.4, 1.0)), size * draw(between(0.4, 1.0)), *base[2:])
        k = draw(between(-0.03, 0.05)), draw(between(-0.005, 0.01)), draw(between(0, 0.002)), draw(between(0, 0.0005))
        prism = draw(between(-1e-3, 1e-3)), draw(between(-1e-3, 1e-3))
        return Camera(model, (*base, *k[:2], *tangential, *k[2:], *prism), width, height)
    return Camera.pinhole(*base, width, height)


#: Calibrations of real devices, rounded: a phone-like pinhole, the Kinect of TUM fr1 (TUM RGB-D documentation), a wide
#: rational lens, a 180-degree fisheye, a panorama.
REAL = {
    "pinhole": Camera.pinhole(518.86, 519.47, 325.58, 253.74, 640, 480),
    "tum-fr1": Camera.opencv(517.3, 516.5, 318.6, 255.3, 640, 480, distortion=(0.262, -0.953, -0.0054, 0.0026, 1.163)),
    "rational": Camera.opencv(
        611.0, 611.2, 640.5, 366.1, 1280, 720, distortion=(0.57, -2.8, 4e-4, -2e-4, 1.6, 0.45, -2.61, 1.52)
    ),
    "fisheye": Camera.kannala_brandt(285.0, 285.1, 424.6, 398.5, 848, 800, distortion=(-0.007, 0.043, -0.04, 0.007)),
    "panorama": Camera.equirectangular(1024, 512),
}


def pixels(camera: Camera, n: int = 300, seed: int = 0) -> np.ndarray:
    """Pixel centres over the whole image, corners included."""
    rng = np.random.default_rng(seed)
    uv = rng.integers(0, (camera.width, camera.height), (n, 2)) + 0.5
    corners = [[u, v] for u in (0.5, camera.width - 0.5) for v in (0.5, camera.height - 0.5)]
    return np.concatenate([uv, corners])


# ---------------------------------------------------------------- there and back


@pytest.mark.parametrize("name", REAL)
def test_every_pixel_of_a_real_camera_has_a_ray_that_projects_to_it(name: str) -> None:
    camera = REAL[name]
    grid = camera.pixel_grid()
    rays = camera.unproject(grid)
    assert np.isfinite(rays).all()
    np.testing.assert_allclose(np.linalg.norm(rays, axis=-1), 1, atol=1e-12)
    np.testing.assert_allclose(camera.project(rays * 7.3), grid, atol=1e-4)


@examples
@given(cameras(), st.integers(0, 100))
def test_project_inverts_unproject(camera: Camera, seed: int) -> None:
    uv = pixels(camera, seed=seed)
    rays = camera.unproject(uv)
    seen = np.isfinite(rays).all(axis=-1)
    assert seen.all() or camera.model in (
        "kannala_brandt",
        "thin_prism_fisheye",
    )  # only a fisheye's image circle may leave corners dark
    depth = np.random.default_rng(seed).uniform(0.1, 200, (len(uv), 1))
    np.testing.assert_allclose(camera.project(rays * depth)[seen], uv[seen], atol=1e-4)


@examples
@given(cameras(), st.integers(0, 100))
def test_unproject_inverts_project(camera: Camera, seed: int) -> None:
    """Whatever point has an image, in the frame or out of it, is parallel to the ray of that image."""
    points = np.random.default_rng(seed).normal(size=(300, 3)) * (3, 3, 2)
    uv = camera.project(points)
    # Outside the image the solver may give up (NaN), but a finite ray must be the right one.
    inside = ((uv >= 0) & (uv <= (camera.width, camera.height))).all(axis=-1)
    rays = camera.unproject(uv)
    assert np.isfinite(rays[inside]).all()
    seen = np.isfinite(rays).all(axis=-1)
    unit = points / np.linalg.norm(points, axis=-1, keepdims=True)
    np.testing.assert_allclose(rays[seen], unit[seen], atol=1e-6)


@given(
    st.lists(between(-0.6, 0.6), min_size=8, max_size=8),
    st.integers(0, 100),
)
@examples
def test_no_second_image_of_points_outside_the_view(coefficients: list[float], seed: int) -> None:
    """With any coefficients, even absurd ones, a point that projects comes back as itself."""
    camera = Camera.opencv(500, 500, 320, 240, 640, 480, distortion=np.array(coefficients) * [1, 1, 0, 0, 1, 1, 1, 1])
    points = np.random.default_rng(seed).normal(size=(500, 3)) * (4, 4, 1)
    uv = camera.project(points)
    rays = camera.unproject(uv)
    seen = np.isfinite(rays).all(axis=-1)
    unit = points / np.linalg.norm(points, axis=-1, keepdims=True)
    np.testing.assert_allclose(rays[seen], unit[seen], atol=1e-4)


def test_radial_polynomial_that_turns_twice_gives_no_ghost() -> None:
    """r (1 - r^2 + 0.3 r^4) falls between r = 0.65 and 1.26 and rises again: beyond, the local slope is positive."""
    camera = Camera.opencv(500, 500, 320, 240, 640, 480, distortion=(-1.0, 0.3, 0, 0))
    assert np.isfinite(camera.project([0.6, 0.0, 1.0])).all()
    assert np.isnan(camera.project([[0.9, 0.0, 1.0], [1.5, 0.0, 1.0], [3.0, 0.0, 1.0]])).all()


# ---------------------------------------------------------------- against the published formulas


def reference_projection(camera: Camera, point: np.ndarray) -> np.ndarray:
    """One point by the formulas of OpenCV's documentation (calib3d, "Detailed Description", and its fisheye module)."""
    x, y, z = (float(v) for v in point)
    fx, fy, cx, cy, *k = camera.params
    if camera.model == "equirectangular":
        return np.array([fx * np.arctan2(x, z) + cx, fy * np.arcsin(y / np.sqrt(x * x + y * y + z * z)) + cy])
    a, b = x / z, y / z
    r = np.sqrt(a * a + b * b)
    if camera.model == "opencv":
        k1, k2, p1, p2, k3, k4, k5, k6 = k
        radial = (1 + k1 * r**2 + k2 * r**4 + k3 * r**6) / (1 + k4 * r**2 + k5 * r**4 + k6 * r**6)
        a, b = (
            a * radial + 2 * p1 * a * b + p2 * (r**2 + 2 * a**2),
            b * radial + p1 * (r**2 + 2 * b**2) + 2 * p2 * a * b,
        )
    if camera.model == "kannala_brandt":
        theta = np.arctan(r)
        theta_d = theta * (1 + k[0] * theta**2 + k[1] * theta**4 + k[2] * theta**6 + k[3] * theta**8)
        a, b = theta_d / r * a, theta_d / r * b
    if camera.model == "thin_prism_fisheye":  # COLMAP's models.h
        k1, k2, p1, p2, k3, k4, sx1, sy1 = k
        a, b = np.arctan(r) / r * a, np.arctan(r) / r * b
        t2 = a * a + b * b
        radial = k1 * t2 + k2 * t2**2 + k3 * t2**3 + k4 * t2**4
        a, b = (
            a + a * radial + 2 * p1 * a * b + p2 * (t2 + 2 * a * a) + sx1 * t2,
            b + b * radial + 2 * p2 * a * b + p1 * (t2 + 2 * b * b) + sy1 * t2,
        )
    return np.array([fx * a + cx, fy * b + cy])


@pytest.mark.parametrize("name", REAL)
def test_projection_is_the_documented_formula(name: str) -> None:
    camera = REAL[name]
    points = np.random.default_rng(1).uniform((-1, -1, 2), (1, 1, 9), (100, 3))
    expected = np.stack([reference_projection(camera, point) for point in points])
    np.testing.assert_allclose(camera.project(points), expected, atol=1e-9)


@examples
@given(cameras(("thin_prism_fisheye",)), st.integers(0, 100))
def test_thin_prism_fisheye_is_that_of_colmap(camera: Camera, seed: int) -> None:
    pycolmap = pytest.importorskip("pycolmap", reason="pycolmap of an optional extra is not installed")
    theirs = pycolmap.Camera(
        model="THIN_PRISM_FISHEYE", width=camera.width, height=camera.height, params=list(camera.params)
    )
    points = np.random.default_rng(seed).uniform((-2, -2, 1), (2, 2, 9), (100, 3))
    expected = np.array([theirs.img_from_cam(point) for point in points])
    uv = camera.project(points)
    assert np.isfinite(uv).all()
    np.testing.assert_allclose(uv, expected, atol=1e-4)


@examples
@given(cameras(), between(-0.3, 0.3), between(-0.3, 0.3), between(0.5, 50))
def test_projection_is_the_documented_formula_for_any_lens(camera: Camera, x: float, y: float, z: float) -> None:
    point = np.array([x * z + 1e-3, y * z, z])
    np.testing.assert_allclose(camera.project(point), reference_projection(camera, point), rtol=1e-9, atol=1e-6)


# ---------------------------------------------------------------- transforms of the image


POINTS = np.random.default_rng(2).uniform((-1, -1, 2), (1, 1, 8), (100, 3))


@examples
@given(cameras(), st.integers(1, 3000), st.integers(1, 3000))
def test_resize_commutes_with_projection(camera: Camera, width: int, height: int) -> None:
    scale = np.array([width / camera.width, height / camera.height])
    expected = camera.project(POINTS) * scale
    np.testing.assert_allclose(camera.resize(width, height).project(POINTS), expected, rtol=1e-9, atol=1e-6)
    # The borders of the image stay its borders: pixel coordinates are continuous, from 0 to the width.
    assert camera.resize(width, height).resize(camera.width, camera.height).cx == pytest.approx(camera.cx)


@examples
@given(cameras(), between(-50, 500), between(-50, 500), st.integers(1, 500), st.integers(1, 500))
def test_crop_commutes_with_projection(camera: Camera, x: float, y: float, width: int, height: int) -> None:
    cropped = camera.crop(x, y, width, height)
    assert (cropped.width, cropped.height) == (width, height)
    np.testing.assert_allclose(cropped.project(POINTS), camera.project(POINTS) - (x, y), atol=1e-6)


@examples
@given(cameras())
def test_flip_mirrors_the_world(camera: Camera) -> None:
    uv = camera.project(POINTS)
    mirrored = camera.flip().project(POINTS * (-1, 1, 1))
    np.testing.assert_allclose(mirrored[:, 0], camera.width - uv[:, 0], rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(mirrored[:, 1], uv[:, 1], rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(camera.flip().flip().params, camera.params, rtol=1e-12)


# ---------------------------------------------------------------- what has no image


def test_points_behind_or_at_the_centre_have_no_image() -> None:
    behind, centre = np.array([0.1, 0.2, -3.0]), np.zeros(3)
    for name in ("pinhole", "tum-fr1"):
        assert np.isnan(REAL[name].project([behind, centre, [1.0, 1.0, 0.0]])).all()
    assert np.isnan(REAL["fisheye"].project([centre, [0.0, 0.0, -1.0]])).all()
    assert np.isnan(REAL["panorama"].project(centre)).all()
    assert np.isfinite(REAL["panorama"].project(behind)).all()  # a panorama sees all round
    for camera in REAL.values():
        assert np.isnan(camera.project([[np.nan, 0, 1], [0, 0, np.inf], [np.inf, 0, 1], [1, -np.inf, 1]])).all()


def test_fisheye_sees_beyond_90_degrees_and_nothing_outside_its_circle() -> None:
    camera = Camera.kannala_brandt(300, 300, 500, 500, 1000, 1000, distortion=(0.0, 0.0, 0.0, 0.0))
    sideways = np.array([np.sin(1.8), 0.0, np.cos(1.8)])  # 103 degrees off the axis
    np.testing.assert_allclose(camera.project(sideways), [500 + 300 * 1.8, 500], atol=1e-9)
    np.testing.assert_allclose(camera.unproject(camera.project(sideways)), sideways, atol=1e-12)
    assert np.isnan(camera.unproject([500 + 300 * 3.2, 500])).all()  # more than 180 degrees


def test_axis_ray_is_forward() -> None:
    for name in ("pinhole", "tum-fr1", "rational", "fisheye", "panorama"):
        camera = REAL[name]
        np.testing.assert_allclose(camera.unproject([camera.cx, camera.cy]), [0, 0, 1], atol=1e-12)


# ---------------------------------------------------------------- description


def test_field_of_view() -> None:
    assert Camera.from_fov(70, 640, 480).fov_x == pytest.approx(70)
    assert Camera.from_fov(70, 640, 480).resize(64, 48).fov_x == pytest.approx(70)
    assert Camera.equirectangular(1000, 500).fov_x == pytest.approx(360)
    fisheye = Camera.kannala_brandt(200, 200, 300, 300, 600, 600, distortion=(0, 0, 0, 0))
    assert fisheye.fov_x == pytest.approx(np.rad2deg(3.0))


def test_field_of_view_ends_where_nothing_is_seen() -> None:
    """At the edge of a fisheye's image circle, or of the part of a barrel distortion that can be inverted."""
    whole = Camera.kannala_brandt(100, 100, 500, 400, 1000, 800, distortion=(0, 0, 0, 0))
    assert whole.fov_x == pytest.approx(360, abs=1e-3)  # r = theta stays one-to-one up to 180 degrees
    folding = Camera.kannala_brandt(200, 200, 500, 400, 1000, 800, distortion=(-0.1, 0, 0, 0))
    edge = np.rad2deg(np.sqrt(1 / 0.3))  # where theta (1 - 0.1 theta^2) turns
    assert folding.fov_x == pytest.approx(2 * edge, abs=0.2)
    left_cut = folding.crop(400, 0, 600, 800)  # its left border is inside the circle
    seen = left_cut.unproject([0, left_cut.cy])
    assert left_cut.fov_x == pytest.approx(edge - np.rad2deg(np.arctan2(seen[0], seen[2])), abs=0.1)
    barrel = Camera.opencv(300, 300, 400, 300, 800, 600, distortion=(-0.3, 0, 0, 0))
    assert np.isnan(barrel.unproject([0, 300])).any()
    assert barrel.fov_x == pytest.approx(2 * np.rad2deg(np.arctan(np.sqrt(1 / 0.9))), abs=0.2)
    assert np.isnan(whole.crop(900, 0, 100, 800).fov_x)  # a window beside the circle


def test_rays_and_grid_have_the_image_layout() -> None:
    camera = Camera.from_fov(60, 7, 5)
    assert camera.pixel_grid().shape == (5, 7, 2)
    assert camera.pixel_grid()[0, 0].tolist() == [0.5, 0.5]
    assert camera.pixel_grid()[-1, -1].tolist() == [6.5, 4.5]
    assert camera.rays().shape == (5, 7, 3)
    assert camera.rays().dtype == np.float32


@examples
@given(cameras())
def test_record_round_trip_through_json(camera: Camera) -> None:
    assert Camera.from_dict(json.loads(json.dumps(camera.to_dict()))) == camera


@pytest.mark.parametrize(
    ("model", "params", "width", "height"),
    [
        ("fisheye624", (1, 1, 0, 0), 4, 4),
        ("pinhole", (1, 1, 0), 4, 4),
        ("pinhole", (1, 1, 0, 0, 0), 4, 4),
        ("pinhole", (0, 1, 0, 0), 4, 4),
        ("pinhole", (1, -1, 0, 0), 4, 4),
        ("pinhole", (1, 1, np.nan, 0), 4, 4),
        ("pinhole", (1, np.inf, 0, 0), 4, 4),
        ("pinhole", ("a", 1, 0, 0), 4, 4),
        ("pinhole", (None, 1, 0, 0), 4, 4),
        ("pinhole", (1, 1, 0, 0), 0, 4),
        ("pinhole", (1, 1, 0, 0), 4, -1),
        ("pinhole", (1, 1, 0, 0), 4.5, 4),
        ("pinhole", (1, 1, 0, 0), "wide", 4),
        ("pinhole", (1, 1, 0, 0), np.nan, 4),
        ("pinhole", (1, 1, 0, 0), np.inf, 4),
    ],
)
def test_bad_parameters_are_refused(model: str, params: tuple, width: int, height: int) -> None:
    with pytest.raises(InputError, match="camera") as error:
        Camera(model, params, width, height)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "record",
    [{}, {"model": "pinhole"}, None, [], "pinhole", {"model": "pinhole", "params": 3, "width": 4, "height": 4}],
)
def test_bad_records_are_refused(record: object) -> None:
    with pytest.raises(InputError, match="camera"):
        Camera.from_dict(record)  # type: ignore[arg-type]


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(InputError, match="4, 5 or 8"):
        Camera.opencv(1, 1, 0, 0, 4, 4, distortion=(0.1, 0.2, 0.3))
    with pytest.raises(InputError, match="field of view"):
        Camera.from_fov(180, 4, 4)
    with pytest.raises(InputError, match="size"):
        Camera.from_fov(60, 4, 4).resize(0, 4)
