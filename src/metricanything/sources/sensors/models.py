"""What sensors do to depth: each a named, seeded model that turns a frame with true depth into one as measured.

A model takes a `Frame` and a `numpy.random.Generator` and returns the frame with `depth` as that sensor would have
given it (NaN where it gives nothing, the sky included), `sigma` where the sensor's own error model states one, and
`kind`, `sensor` and `notes["sensor_model"]` to match. Image resolutions differ, so quantities that papers give in
pixels of a VGA sensor are scaled to the width of the frame. Depth is z-depth in metres throughout.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.sources.sensors.steps import (
    JUMP,
    VGA,
    cell,
    corners,
    cosine,
    edges,
    extremes,
    grown_foreground,
    local_contrast,
    luma,
    measurable,
    measured,
    occluded,
    range_image,
    rasterised,
    ray_z,
    smooth_noise,
)


def stereo(frame: Frame, rng: np.random.Generator) -> Frame:
    """Passive stereo: occlusion and textureless holes, edge fattening, error growing with the square of depth.

    A block matcher gives sub-pixel disparity d = f b / Z with an error of a fraction of a pixel, correlated over its
    window, hence sigma_Z = Z^2 sigma_d / (f b); the foreground grows by half a window at edges, nothing is measured
    where the other camera's view is blocked or the window has no texture (Keselman et al., Intel RealSense
    Stereoscopic Depth Cameras, CVPRW 2017; Scharstein and Szeliski, IJCV 2002).
    """
    baseline, sub_pixel = rng.uniform(0.05, 0.20), rng.uniform(0.05, 0.25)
    focal = frame.camera.fx * VGA / frame.width
    true = measurable(frame)
    fat = grown_foreground(true, rng, window=int(rng.integers(5, 12)))
    disparity = focal * baseline / fat
    disparity = disparity + sub_pixel * smooth_noise(rng, true.shape, 1.5)
    disparity = np.round(disparity * 16) / 16
    keep = (disparity > 1) & (disparity < 160)
    keep &= ~occluded(fat, frame.camera.fx * baseline, side=1)
    keep &= local_contrast(frame.image) > rng.uniform(0.002, 0.012)
    depth = focal * baseline / np.where(keep, disparity, np.nan)
    return measured(frame, depth, "stereo", "captured", "stereo", sigma=depth**2 * sub_pixel / (focal * baseline))


def structured_light(frame: Frame, rng: np.random.Generator) -> Frame:
    """Structured light (first Kinect): projector shadows, quantised quadratic noise, dark and grazing holes.

    Random error 1.425e-3 Z^2 and depth steps of 2.85e-3 Z^2 (metres) from 0.5 to 5 m with a 7.5 cm baseline
    (Khoshelham and Elberink, Sensors 2012); the pattern is lost at grazing incidence and on surfaces that return little
    light (Mallick, Das and Majumdar, IEEE Sensors Journal 2014).
    """
    true = grown_foreground(measurable(frame), rng, window=7)
    sigma = 1.425e-3 * true**2 * rng.uniform(0.7, 1.3)
    inverse = 1 / (true + sigma * smooth_noise(rng, true.shape, 0.7))
    depth = 1 / (np.maximum(np.round(inverse / 2.85e-3), 1) * 2.85e-3)
    keep = (true > 0.5) & (true < rng.uniform(4.0, 6.0))
    keep &= ~occluded(true, frame.camera.fx * 0.075, side=-1)
    keep &= cosine(frame) > 0.2
    keep &= (luma(frame.image) > rng.uniform(0.0, 0.01)) | (rng.random(true.shape) < 0.3)
    return measured(frame, np.where(keep, depth, np.nan), "structured_light", "captured", "rgbd", sigma=sigma)


def tof(frame: Frame, rng: np.random.Generator) -> Frame:
    """Time of flight: flying pixels between fore- and background, range noise growing as the returned light fades.

    A pixel at an edge integrates light of both sides, and its range falls between them (Sabov and Krueger,
    Identification and correction of flying pixels, SCCG 2008); noise goes as one over the root of the amplitude,
    which falls with the square of the range and with incidence (Lange and Seitz, IEEE JQE 2001). Beyond the
    ambiguity range and below a least amplitude nothing is given.
    """
    true = measurable(frame)
    low, high = extremes(true, 3)
    edge = (high / low > 1 + JUMP) & (rng.random(true.shape) < 0.7)
    share = rng.beta(1.0, 1.0, true.shape)
    depth = np.where(edge, share * low + (1 - share) * high, true)
    distance = depth / np.maximum(ray_z(frame), 1e-3)
    amplitude = (luma(frame.image) + 0.05) * np.maximum(cosine(frame), 0.05) / distance**2
    sigma = rng.uniform(0.0008, 0.003) / np.sqrt(np.maximum(amplitude, 1e-6))
    depth = depth * (1 + rng.uniform(-0.004, 0.004)) + np.clip(rng.standard_normal(true.shape), -3, 3) * sigma
    keep = (distance < rng.choice([5.0, 7.5, 10.0])) & (amplitude > 1e-4) & (distance > 0.1) & (sigma < 0.1 * depth)
    return measured(frame, np.where(keep, depth, np.nan), "tof", "captured", "tof", sigma=sigma)


def lidar(frame: Frame, rng: np.random.Generator) -> Frame:
    """Spinning LiDAR beside the camera: scan lines, drop-out, range noise, and parallax bleed-through.

    8 to 64 lines of 400 to 1000 columns from a sensor 3 to 6 cm away, as in OMNI-DC (Zuo et al., ICCV 2025): it
    sees background beside a foreground edge that the camera does not, and such returns fall on foreground pixels.
    Lines fan out over the image's height, as from a sensor made for that field of view.
    """
    true = measurable(frame)
    offset = rng.standard_normal(3) * [1, 1, 0.3]
    offset *= rng.uniform(0.03, 0.06) / np.linalg.norm(offset)
    rays = frame.camera.rays().astype(np.float64)
    scaled = rays * (true / np.where(rays[..., 2] > 0, rays[..., 2], np.nan))[..., None]
    points = scaled[np.isfinite(scaled).all(-1)] - offset
    if not len(points):
        return measured(frame, np.full_like(true, np.nan), "lidar", "captured", "lidar")
    tilt = rng.uniform(-0.05, 0.05, 2)  # of the scan lines: roll, and pitch per azimuth
    azimuth = np.arctan2(points[:, 0], points[:, 2])
    elevation = np.arctan2(points[:, 1], np.hypot(points[:, 0], points[:, 2])) - tilt[0] * azimuth
    span = np.array([[azimuth.min(), azimuth.max()], [elevation.min(), elevation.max()]])
    lines, columns = int(rng.choice([8, 16, 32, 64])), int(rng.integers(400, 1001))
    scan = range_image(azimuth, elevation, np.linalg.norm(points, axis=1), span, frame.height, frame.width)
    beam_azimuth = np.arange(span[0, 0], span[0, 1], 2 * np.pi / columns)
    margin = (span[1, 1] - span[1, 0]) / (2 * lines)
    beam_elevation = np.linspace(span[1, 0] + margin, span[1, 1] - margin, lines)
    a, e = (x.ravel() for x in np.meshgrid(beam_azimuth, beam_elevation))
    column, row = (cell(v, s, n) for v, s, n in ((a, span[0], frame.width), (e, span[1], frame.height)))
    distance = scan[row, column]
    distance = distance + np.clip(rng.standard_normal(len(a)), -3, 3) * rng.uniform(0.005, 0.03)
    keep = (rng.random(len(a)) > rng.uniform(0.02, 0.2)) & (distance > 0.4) & (distance < 120)
    a, e, distance = a[keep], (e + tilt[0] * a)[keep], distance[keep, None]
    direction = np.stack([np.cos(e) * np.sin(a), np.sin(e), np.cos(e) * np.cos(a)], -1)
    return measured(frame, rasterised(frame, direction * distance + offset), "lidar", "captured", "lidar")


def mvs(frame: Frame, rng: np.random.Generator) -> Frame:
    """Multi-view stereo: rounded depth edges, patches of outliers, smooth error, gaps where there is no texture.

    Patch matching averages over windows that straddle edges and, with little texture, locks onto wrong depths in
    connected patches; geometric consistency leaves gaps there (Schoenberger et al., Pixelwise view selection for
    unstructured multi-view stereo, ECCV 2016; Furukawa and Hernandez, Multi-view stereo: a tutorial, 2015).
    """
    true = measurable(frame)
    width = rng.uniform(0.004, 0.012) * frame.width
    weight = ndimage.gaussian_filter(np.isfinite(true).astype(float), width)
    smooth = ndimage.gaussian_filter(np.nan_to_num(1 / true), width) / np.maximum(weight, 1e-6)
    near_edge = ndimage.gaussian_filter(edges(true).astype(float), width) > 0.05
    inverse = np.where(near_edge, smooth, 1 / true)
    error = rng.uniform(0.002, 0.01)
    depth = (1 / inverse) * (1 + error * np.clip(smooth_noise(rng, true.shape, 2.0), -4, 4))
    doubtful = local_contrast(frame.image) + 0.01 * rng.random(true.shape) < rng.uniform(0.004, 0.014)
    patches = smooth_noise(rng, true.shape, 0.012 * frame.width) > rng.uniform(1.8, 2.6)
    if np.isfinite(true).any():
        low, high = np.nanpercentile(true, [2, 98])
        wrong = 1 / (1 / high + (1 / low - 1 / high) * rng.random(true.shape))
        wrong = np.where(rng.random(true.shape) < 0.3, wrong, ndimage.uniform_filter(wrong, 5))
        depth = np.where(patches & np.isfinite(true), wrong, depth)
    depth = np.where(np.isfinite(true) & (patches | ~doubtful), depth, np.nan)
    return measured(frame, depth, "mvs", "reconstructed", "mvs")


def sfm(frame: Frame, rng: np.random.Generator) -> Frame:
    """Structure from motion: sparse points at corners, noisier the shorter their track, with a few outliers.

    Points lie at local maxima of the corner response (Shi and Tomasi, CVPR 1994); tracks are mostly short, and
    triangulation from n views with a reprojection error of s pixels over a baseline B leaves
    sigma_Z = Z^2 s / (f B sqrt(n)) (Schoenberger and Frahm, Structure-from-motion revisited, CVPR 2016, for tracks
    and errors; Hartley and Zisserman, chapter 12, for the geometry).
    """
    true = measurable(frame)
    response = corners(frame.image)
    peaks = (response == ndimage.maximum_filter(response, 3)) & (response > 1e-7) & np.isfinite(true)
    where = np.flatnonzero(peaks)
    wanted = int(rng.integers(150, 1500) * np.sqrt(frame.width * frame.height / 307200))
    chance = response.ravel()[where] ** 0.25
    count = min(wanted, len(where))
    chosen = rng.choice(where, count, replace=False, p=chance / chance.sum()) if count else where
    z = true.ravel()[chosen]
    track = 2 + rng.geometric(0.35, count)
    baseline = rng.uniform(0.05, 0.25) * (np.median(z) if count else 1.0) * np.sqrt(track / 4)
    pixel = rng.uniform(0.3, 0.9) * frame.width / VGA
    sigma = np.minimum(z**2 * pixel / (frame.camera.fx * baseline * np.sqrt(track)), 0.3 * z)
    found = z + np.clip(rng.standard_normal(count), -3, 3) * sigma
    outlier = rng.random(count) < rng.uniform(0.0, 0.04)
    found = np.where(outlier, z * np.exp(rng.uniform(-0.7, 0.7, count)), found)
    depth, spread = np.full(true.size, np.nan), np.full(true.size, np.nan)
    depth[chosen], spread[chosen] = found, sigma
    return measured(frame, depth.reshape(true.shape), "sfm", "reconstructed", "sfm", spread.reshape(true.shape))


#: Every sensor model by name.
SENSOR_MODELS: dict[str, Callable[[Frame, np.random.Generator], Frame]] = {
    "stereo": stereo,
    "structured_light": structured_light,
    "tof": tof,
    "lidar": lidar,
    "mvs": mvs,
    "sfm": sfm,
}


def simulate(frame: Frame, name: str, seed: int) -> Frame:
    """`frame` as the sensor model `name` would have measured it; raises InputError for an unknown name."""
    if name not in SENSOR_MODELS:
        raise InputError(f"sensor model {name!r} is unknown; use one of {', '.join(SENSOR_MODELS)}")
    return SENSOR_MODELS[name](frame, np.random.default_rng(seed))
