"""Camera: model name + parameters + size; project, unproject, rays, resize, crop.

Conventions (docs/conventions.md): OpenCV camera frame (x right, y down, z forward); the centre of the
top-left pixel is at (0.5, 0.5), so resizing scales all pixel coordinates by one factor and cropping shifts them.
Every model starts with (fx, fy, cx, cy) in pixels; distortion coefficients follow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metricanything.core.errors import InputError

Array = NDArray[np.float64]

#: Names of the parameters of each model, in order. `opencv` is OpenCV's rational radial-tangential model
#: (calib3d documentation, also COLMAP's FULL_OPENCV); `kannala_brandt` is OpenCV's fisheye model (Kannala and
#: Brandt, PAMI 2006, with four coefficients); `thin_prism_fisheye` is COLMAP's THIN_PRISM_FISHEYE, an equidistant
#: fisheye whose image is then distorted (Weng et al., PAMI 1992); `equirectangular` maps longitude and latitude
#: linearly, with fx and fy in pixels per radian.
PARAMETERS = {
    "pinhole": ("fx", "fy", "cx", "cy"),
    "opencv": ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"),
    "kannala_brandt": ("fx", "fy", "cx", "cy", "k1", "k2", "k3", "k4"),
    "thin_prism_fisheye": ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2", "k3", "k4", "sx1", "sy1"),
    "equirectangular": ("fx", "fy", "cx", "cy"),
}
_NEWTON_STEPS = 30
_SAMPLES = 4000  # of the angle off the axis, to find where a distortion stops rising
_BISECTIONS = 40  # of the image width: far below any rounding of a pixel
_CONVERGED = 1e-8  # residual on the normalised image plane; far below 1e-4 px at any real focal length


@dataclass(frozen=True)
class Camera:
    """A calibrated camera: `model`, its `params` in pixels (see `PARAMETERS`) and the image size in pixels.

    Raises InputError for an unknown model, a wrong number of parameters, values that are not finite,
    a focal length that is not positive, or an empty image.
    """

    model: str
    params: tuple[float, ...]
    width: int
    height: int

    def __post_init__(self) -> None:
        if self.model not in PARAMETERS:
            raise InputError(f"camera model {self.model!r} is unknown; use one of {', '.join(PARAMETERS)}")
        names = PARAMETERS[self.model]
        try:
            params, width, height = tuple(float(p) for p in self.params), int(self.width), int(self.height)
        except (TypeError, ValueError, OverflowError):
            raise InputError(
                f"camera parameters and size must be numbers, got {self.params}, {self.width}x{self.height}"
            ) from None
        if width < 1 or height < 1 or width != self.width or height != self.height:
            raise InputError(f"camera image size must be whole pixels, at least 1x1, got {self.width}x{self.height}")
        if len(params) != len(names):
            raise InputError(f"camera model {self.model!r} takes {len(names)} parameters {names}, got {len(params)}")
        if not np.all(np.isfinite(params)):
            raise InputError(f"camera parameters must be finite numbers, got {params}")
        if params[0] <= 0 or params[1] <= 0:
            raise InputError(f"camera focal lengths must be positive pixels, got fx={params[0]}, fy={params[1]}")
        object.__setattr__(self, "params", params)
        object.__setattr__(self, "width", width)
        object.__setattr__(self, "height", height)

    # ------------------------------------------------------------------ making one

    @classmethod
    def pinhole(cls, fx: float, fy: float, cx: float, cy: float, width: int, height: int) -> Camera:
        """A camera without distortion: u = fx x/z + cx, v = fy y/z + cy (pixels)."""
        return cls("pinhole", (fx, fy, cx, cy), width, height)

    @classmethod
    def opencv(
        cls, fx: float, fy: float, cx: float, cy: float, width: int, height: int, *, distortion: ArrayLike
    ) -> Camera:
        """A camera with OpenCV radial-tangential distortion (k1, k2, p1, p2[, k3[, k4, k5, k6]])."""
        k = tuple(np.asarray(distortion, dtype=float).ravel())
        if len(k) not in (4, 5, 8):
            raise InputError(f"opencv distortion takes 4, 5 or 8 coefficients, got {len(k)}")
        return cls("opencv", (fx, fy, cx, cy, *k, *(0.0,) * (8 - len(k))), width, height)

    @classmethod
    def kannala_brandt(
        cls, fx: float, fy: float, cx: float, cy: float, width: int, height: int, *, distortion: ArrayLike
    ) -> Camera:
        """A fisheye camera: r = theta (1 + k1 theta^2 + k2 theta^4 + k3 theta^6 + k4 theta^8)."""
        k = tuple(np.asarray(distortion, dtype=float).ravel())
        return cls("kannala_brandt", (fx, fy, cx, cy, *k), width, height)

    @classmethod
    def equirectangular(cls, width: int, height: int) -> Camera:
        """A full panorama: longitude -pi..pi over the width, latitude -pi/2..pi/2 over the height."""
        return cls("equirectangular", (width / (2 * np.pi), height / np.pi, width / 2, height / 2), width, height)

    @classmethod
    def centred(cls, focal: float, width: int, height: int) -> Camera:
        """A pinhole camera with square pixels, a centred principal point and a focal length in pixels."""
        return cls.pinhole(focal, focal, width / 2, height / 2, width, height)

    @classmethod
    def from_fov(cls, fov_x: float, width: int, height: int) -> Camera:
        """A pinhole camera with square pixels, a centred principal point and a horizontal FoV in degrees."""
        if not 0 < fov_x < 180:
            raise InputError(f"horizontal field of view must lie between 0 and 180 degrees, got {fov_x}")
        return cls.centred(width / 2 / np.tan(np.deg2rad(fov_x) / 2), width, height)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Camera:
        """The inverse of `to_dict`; raises InputError when a key is missing."""
        try:
            return cls(value["model"], tuple(value["params"]), value["width"], value["height"])
        except (KeyError, TypeError) as error:
            raise InputError(f"camera record needs model, params, width and height ({error!r})") from None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: model, params, width, height."""
        return {"model": self.model, "params": list(self.params), "width": self.width, "height": self.height}

    # ------------------------------------------------------------------ what it says of itself

    @property
    def fx(self) -> float:
        """Horizontal focal length in pixels (pixels per radian for equirectangular images)."""
        return self.params[0]

    @property
    def fy(self) -> float:
        """Vertical focal length in pixels."""
        return self.params[1]

    @property
    def cx(self) -> float:
        """Horizontal principal point in pixels; the image centre is width / 2."""
        return self.params[2]

    @property
    def cy(self) -> float:
        """Vertical principal point in pixels."""
        return self.params[3]

    @property
    def K(self) -> NDArray[np.float64]:
        """The (3, 3) intrinsic matrix; for models with distortion, that of the undistorted part."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], dtype=np.float64)

    @property
    def fov_x(self) -> float:
        """Horizontal field of view in degrees: the angle between the outermost rays on the principal point's row.

        These are the rays of the left and right image borders or, where they see nothing (a fisheye whose image circle
        ends inside the image, a distortion that cannot be inverted), the outermost that do. NaN when none does.
        """
        if self.model == "equirectangular":
            return float(np.rad2deg(self.width / self.fx))
        borders = np.array([0.0, self.width])
        seen = np.full(2, np.clip(self.cx, 0, self.width))
        rays = self._row_rays(borders)
        if np.isnan(rays).any():
            blind = borders.copy()
            for _ in range(_BISECTIONS):
                middle = (seen + blind) / 2
                good = ~np.isnan(self._row_rays(middle)[:, 0])
                seen, blind = np.where(good, middle, seen), np.where(good, blind, middle)
            rays = np.where(np.isnan(rays), self._row_rays(seen), rays)
        left, right = np.arctan2(rays[:, 0], rays[:, 2])
        return float(np.rad2deg(right - left))

    def _row_rays(self, u: Array) -> Array:
        """Rays (N, 3) of columns `u` (N,) on the principal point's row."""
        return self.unproject(np.stack([u, np.full_like(u, self.cy)], axis=-1))

    # ------------------------------------------------------------------ geometry

    def project(self, points: ArrayLike) -> Array:
        """Pixels (..., 2) of `points` (..., 3) in the camera frame (metres).

        NaN where a point has no image: behind a pinhole or OpenCV camera, at the camera centre, outside the range in
        which the distortion is one-to-one, or not finite.
        """
        xyz = np.asarray(points, dtype=np.float64)
        x, y, z = xyz[..., 0], xyz[..., 1], xyz[..., 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.model == "equirectangular":
                a, b = np.arctan2(x, z), np.arctan2(y, np.hypot(x, z))
                visible = (x != 0) | (y != 0) | (z != 0)
            elif self.model == "kannala_brandt":
                r = np.hypot(x, y)
                theta = np.arctan2(r, z)
                scale = np.where(r > 0, self._fisheye(theta)[0] / r, 0.0)
                a, b = x * scale, y * scale
                visible = ((r > 0) | (z > 0)) & (theta <= self._fisheye_limit())
            elif self.model == "thin_prism_fisheye":
                r = np.hypot(x, y)
                theta = np.arctan2(r, z)
                scale = np.where(r > 0, theta / r, 0.0)
                (a, b), jacobian = self._distort(x * scale, y * scale)
                visible = ((r > 0) | (z > 0)) & _positive(jacobian) & (theta <= self._radial_limit())
            else:
                a, b = x / z, y / z
                visible = z > 0
                if self.model == "opencv":
                    (a, b), jacobian = self._distort(a, b)
                    visible &= _positive(jacobian) & (np.hypot(x / z, y / z) <= self._radial_limit())
            uv = np.stack([self.fx * a + self.cx, self.fy * b + self.cy], axis=-1)
        # A point at infinity may have a finite image, but it is no measurement: sensors write inf for "no return".
        visible = visible & np.isfinite(uv).all(axis=-1) & np.isfinite(xyz).all(axis=-1)
        return np.where(visible[..., None], uv, np.nan)

    def unproject(self, uv: ArrayLike) -> Array:
        """Unit viewing rays (..., 3) in the camera frame of pixels `uv` (..., 2).

        NaN where the pixel sees nothing: outside a fisheye's image circle or where the distortion cannot be inverted.
        """
        pixels = np.asarray(uv, dtype=np.float64)
        a = (pixels[..., 0] - self.cx) / self.fx
        b = (pixels[..., 1] - self.cy) / self.fy
        if self.model == "equirectangular":
            ray = np.stack([np.cos(b) * np.sin(a), np.sin(b), np.cos(b) * np.cos(a)], axis=-1)
            return np.where((np.abs(b) <= np.pi / 2)[..., None], ray, np.nan)
        if self.model == "thin_prism_fisheye":
            a, b = self._undistort(a, b)
        if self.model in ("kannala_brandt", "thin_prism_fisheye"):
            radius = np.hypot(a, b)
            theta = self._invert_fisheye(radius) if self.model == "kannala_brandt" else radius
            with np.errstate(invalid="ignore"):
                scale = np.where(radius > 0, np.sin(theta) / np.maximum(radius, 1e-300), 1.0)
            return np.stack([a * scale, b * scale, np.cos(theta)], axis=-1)
        if self.model == "opencv":
            a, b = self._undistort(a, b)
        ray = np.stack([a, b, np.ones_like(a)], axis=-1)
        unit: Array = ray / np.linalg.norm(ray, axis=-1, keepdims=True)
        return unit

    def pixel_grid(self) -> Array:
        """Pixel centres (height, width, 2), the first at (0.5, 0.5)."""
        u, v = np.meshgrid(np.arange(self.width) + 0.5, np.arange(self.height) + 0.5)
        return np.stack([u, v], axis=-1)

    def rays(self) -> NDArray[np.float32]:
        """Unit viewing rays (height, width, 3) float32 of all pixel centres; NaN where a pixel sees nothing."""
        return self.unproject(self.pixel_grid()).astype(np.float32)

    def plane(self) -> NDArray[np.float32]:
        """x/z and y/z (height, width, 2) float32 of all pixel centres; NaN where a pixel sees nothing in front."""
        plane = np.empty((self.height, self.width, 2), np.float32)
        if self.model == "pinhole":
            plane[..., 0] = (np.arange(self.width) + 0.5 - self.cx) / self.fx
            plane[..., 1] = (np.arange(self.height)[:, None] + 0.5 - self.cy) / self.fy
        else:
            rays = self.rays()
            with np.errstate(divide="ignore", invalid="ignore"):
                plane[:] = np.where(rays[..., 2:] > 0, rays[..., :2] / rays[..., 2:], np.float32(np.nan))
        return plane

    def resize(self, width: int, height: int) -> Camera:
        """The camera of the same image resampled to `width` x `height` pixels."""
        sx, sy = width / self.width, height / self.height
        fx, fy, cx, cy, *rest = self.params
        return Camera(self.model, (fx * sx, fy * sy, cx * sx, cy * sy, *rest), width, height)

    def crop(self, x: float, y: float, width: int, height: int) -> Camera:
        """The camera of the window whose top-left corner is at pixel coordinate (x, y)."""
        fx, fy, cx, cy, *rest = self.params
        return Camera(self.model, (fx, fy, cx - x, cy - y, *rest), width, height)

    def flip(self) -> Camera:
        """The camera of the image mirrored left to right (the tangential p2 and prism sx1 change sign with it)."""
        params = list(self.params)
        params[2] = self.width - params[2]
        if self.model in ("opencv", "thin_prism_fisheye"):
            params[7] = -params[7]
        if self.model == "thin_prism_fisheye":
            params[10] = -params[10]
        return Camera(self.model, tuple(params), self.width, self.height)

    # ------------------------------------------------------------------ distortion

    def _distort(self, x: Array, y: Array) -> tuple[tuple[Array, Array], tuple[Array, Array, Array, Array]]:
        """Distorted normalised coordinates and their Jacobian (dxdx, dxdy, dydx, dydy)."""
        p1, p2 = self.params[6:8]
        s1, s2 = self.params[10:12] if self.model == "thin_prism_fisheye" else (0.0, 0.0)
        r2 = x * x + y * y
        top, bottom, d_top, d_bottom = self._radial(r2)
        radial = top / bottom
        slope = (d_top * bottom - top * d_bottom) / (bottom * bottom)  # d radial / d r2
        xd = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x) + s1 * r2
        yd = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y + s2 * r2
        dxdx = radial + 2 * x * x * slope + 2 * p1 * y + (6 * p2 + 2 * s1) * x
        shared = 2 * x * y * slope + 2 * p1 * x + 2 * p2 * y
        dydy = radial + 2 * y * y * slope + (6 * p1 + 2 * s2) * y + 2 * p2 * x
        return (xd, yd), (dxdx, shared + 2 * s1 * y, shared + 2 * s2 * x, dydy)

    def _undistort(self, xd: Array, yd: Array) -> tuple[Array, Array]:
        """Invert `_distort` by Newton's method; NaN where it does not converge inside the one-to-one region."""
        x, y = xd.copy(), yd.copy()
        with np.errstate(all="ignore"):
            for _ in range(_NEWTON_STEPS):
                (fx, fy), (a, b, c, d) = self._distort(x, y)
                ex, ey, det = fx - xd, fy - yd, a * d - b * c
                if np.nanmax(np.hypot(ex, ey), initial=0.0) < _CONVERGED:
                    break
                x, y = x - (d * ex - b * ey) / det, y - (a * ey - c * ex) / det
            (fx, fy), jacobian = self._distort(x, y)
            good = (np.hypot(fx - xd, fy - yd) < _CONVERGED) & _positive(jacobian)
            good &= np.hypot(x, y) <= self._radial_limit()
        return np.where(good, x, np.nan), np.where(good, y, np.nan)

    def _radial(self, r2: Array) -> tuple[Array, Array, Array, Array]:
        """Numerator and denominator of the radial factor at a squared radius, and their derivatives by it."""
        k1, k2, _, _, k3, k4, k5, k6 = self.params[4:]
        if self.model == "thin_prism_fisheye":  # k4 follows k3, and there is no denominator
            top = 1 + r2 * (k1 + r2 * (k2 + r2 * (k3 + r2 * k4)))
            return top, np.ones_like(r2), k1 + r2 * (2 * k2 + r2 * (3 * k3 + 4 * r2 * k4)), np.zeros_like(r2)
        top, bottom = 1 + r2 * (k1 + r2 * (k2 + r2 * k3)), 1 + r2 * (k4 + r2 * (k5 + r2 * k6))
        return top, bottom, k1 + r2 * (2 * k2 + 3 * r2 * k3), k4 + r2 * (2 * k5 + 3 * r2 * k6)

    def _radial_limit(self) -> float:
        """Largest radius, at most that of 89.9 degrees off the axis (180 of a fisheye), up to which distortion rises.

        Beyond it the polynomial may turn and rise again: points far outside the view would fall into the image a
        second time, and the sign of the local Jacobian alone does not show it.
        """
        fisheye = self.model == "thin_prism_fisheye"
        r = np.linspace(0, np.pi, _SAMPLES) if fisheye else np.tan(np.deg2rad(np.linspace(0, 89.9, _SAMPLES)))
        top, bottom, d_top, d_bottom = self._radial(r * r)
        return _last_rising(r, (bottom > 0) & ((top + 2 * r * r * d_top) * bottom > 2 * r * r * top * d_bottom))

    def _fisheye(self, theta: Array) -> tuple[Array, Array]:
        """Image radius r(theta) and its slope."""
        k1, k2, k3, k4 = self.params[4:]
        t2 = theta * theta
        r = theta * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4))))
        slope = 1 + t2 * (3 * k1 + t2 * (5 * k2 + t2 * (7 * k3 + t2 * 9 * k4)))
        return r, slope

    def _fisheye_limit(self) -> float:
        """Largest theta up to which r(theta) rises: the edge of the image circle, at most pi."""
        theta = np.linspace(0, np.pi, _SAMPLES)
        return _last_rising(theta, self._fisheye(theta)[1] > 0)

    def _invert_fisheye(self, radius: Array) -> Array:
        """theta of an image radius by Newton's method with bisection as a safeguard; NaN outside the image circle."""
        limit = self._fisheye_limit()
        low, high = np.zeros_like(radius), np.full_like(radius, limit)
        theta = np.clip(radius, 0, limit)
        with np.errstate(all="ignore"):
            for _ in range(60):
                r, slope = self._fisheye(theta)
                error = r - radius
                if np.nanmax(np.abs(error), initial=0.0) < 1e-14:
                    break
                low, high = np.where(error < 0, theta, low), np.where(error > 0, theta, high)
                step = theta - error / slope
                theta = np.where((step >= low) & (step <= high), step, (low + high) / 2)
            r, _ = self._fisheye(theta)
        return np.where(np.abs(r - radius) < _CONVERGED, theta, np.nan)


def _positive(jacobian: tuple[Array, Array, Array, Array]) -> NDArray[np.bool_]:
    a, b, c, d = jacobian
    return np.asarray((a * d - b * c > 0) & (a + d > 0))


def _last_rising(x: Array, rising: NDArray[np.bool_]) -> float:
    """The last of the ascending samples `x` before the first that is not rising.

    Samples, because the roots of these polynomials are lost to rounding when a high coefficient is tiny.
    """
    return float(x[-1] if rising.all() else x[max(int(np.argmin(rising)) - 1, 0)])
