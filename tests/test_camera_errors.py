"""Errors of recovered cameras, against angles worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from expectations import assert_refused
from hypothesis import given
from hypothesis import strategies as st

from metricanything.core.camera import Camera
from metricanything.evaluation.camera import camera_errors, focal_error, fov_error, ray_error, summarise

TRUTH = Camera.pinhole(500, 520, 300, 250, 640, 480)


def test_the_true_camera_has_no_error() -> None:
    assert camera_errors(TRUTH, TRUTH) == {"fov_deg": 0, "focal": 0, "rays_deg": 0}


@given(st.floats(20, 120), st.floats(20, 120))
def test_field_of_view_and_focal_length(a: float, b: float) -> None:
    recovered, truth = Camera.from_fov(a, 640, 480), Camera.from_fov(b, 640, 480)
    assert fov_error(recovered, truth) == pytest.approx(abs(a - b), abs=1e-9)
    ratio = math.tan(math.radians(b / 2)) / math.tan(math.radians(a / 2))
    assert focal_error(recovered, truth) == pytest.approx(abs(ratio - 1), abs=1e-9)


def test_rays_against_angles_pixel_by_pixel() -> None:
    recovered = Camera.opencv(450, 470, 320, 240, 640, 480, distortion=(-0.1, 0.02, 0.001, 0))
    angles = []
    for i in range(64):
        for j in range(64):
            uv = ((j + 0.5) * 10, (i + 0.5) * 7.5)
            cosine = float(np.dot(recovered.unproject(uv), TRUTH.unproject(uv)))
            angles.append(math.degrees(math.acos(min(cosine, 1))))
    assert ray_error(recovered, TRUTH) == pytest.approx(np.mean(angles), rel=1e-6)


def test_a_turned_principal_point_is_seen_by_the_rays_alone() -> None:
    recovered = Camera.pinhole(500, 520, 300, 300, 640, 480)
    assert focal_error(recovered, TRUTH) == 0
    assert 4 < ray_error(recovered, TRUTH) < math.degrees(math.atan(50 / 520))  # the largest, on the axis


def test_pixels_without_a_ray_are_left_out() -> None:
    fisheye = Camera.kannala_brandt(100, 100, 320, 240, 640, 480, distortion=(0, 0, 0, 0))
    assert np.isnan(fisheye.unproject((5.0, 5.0))).all()
    assert np.isfinite(ray_error(fisheye, fisheye))


def test_summary() -> None:
    errors = [{"fov_deg": d, "focal": f, "rays_deg": d / 2} for d, f in ((1, 0.1), (3, 0.3), (8, 0.9))]
    assert summarise(errors) == {
        "images": 3, "fov_deg": 4, "fov_deg_median": 3, "focal_25": 1 / 3, "focal_50": 2 / 3, "rays_deg": 2,
    }  # fmt: skip
    assert summarise([]) == {"images": 0}


def test_cameras_of_different_sizes_are_refused() -> None:
    for error in (fov_error, focal_error, ray_error):
        assert_refused(lambda e=error: e(TRUTH, TRUTH.resize(320, 240)), "320x240", "resize one of them")
