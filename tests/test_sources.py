"""Readers of raw formats: one test over all of them, and real data; see also test_sources_formats.py."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from source_fixtures import FRAMES, HEIGHT, WIDTH, require
from source_fixtures_all import FIXTURES

from metricanything import samples, sources
from metricanything.core.camera import Camera
from metricanything.core.codecs import read_depth
from metricanything.core.errors import InputError
from metricanything.core.frame import Frame

SHARED = Path(__file__).parents[2] / "shared" / "data"
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the shared development data is not beside the repository"
)
FROM_FILES = [name for name, reader in sources.READERS.items() if reader.needs_path]
OWN_IMAGES = [name for name, fixture in FIXTURES.items() if fixture.images is not None]
OWN_FILES = [
    (name, damage)
    for name, fixture in FIXTURES.items()
    for damage, there in (("image", fixture.images), ("depth", fixture.bad_depth))
    if there is not None
]


@pytest.fixture
def made(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """A data set of the parametrised kind and its folder."""
    kind: str = request.param
    require(kind)
    root = tmp_path / "data"
    root.mkdir()
    FIXTURES[kind].build(root)
    return kind, root


def read_all(kind: str, root: Path, **options: Any) -> list[Frame]:
    path = root if sources.READERS[kind].needs_path else None
    return list(sources.read(kind, path, **{**FIXTURES[kind].options, **options}))


# ---------------------------------------------------------------- every reader


def test_every_reader_has_a_fixture_and_says_what_it_is() -> None:
    assert set(FIXTURES) == set(sources.READERS)
    for name, reader in sources.READERS.items():
        assert reader.name == name and reader.description and reader.licence and reader.url


def test_registry_imports_nothing_heavy() -> None:
    code = (
        "import sys, metricanything.sources as s; assert s.READERS;"
        "print([m for m in ('torch', 'pycolmap', 'scipy', 'OpenEXR', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("made", list(sources.READERS), indirect=True)
def test_frames_of_every_reader(made: tuple[str, Path]) -> None:
    kind, root = made
    frames = read_all(kind, root)
    assert len(frames) == FRAMES
    assert len({f.name for f in frames}) == FRAMES
    for frame in frames:
        assert isinstance(frame, Frame)
        assert frame.image.shape == (HEIGHT, WIDTH, 3)
        assert frame.valid.any()
        assert frame.source and frame.licence
        assert (frame.scale == "metric") == sources.READERS[kind].metric


@pytest.mark.parametrize("made", OWN_IMAGES, indirect=True)
def test_frames_are_loaded_one_by_one(made: tuple[str, Path]) -> None:
    kind, root = made
    frames = sources.read(kind, root, **FIXTURES[kind].options)
    next(frames)
    images = FIXTURES[kind].images
    assert images is not None
    for image in images(root):
        image.unlink()
    with pytest.raises(InputError):
        next(frames)


def test_generator_streams() -> None:
    frame = next(sources.read("procedural", count=10**6, width=WIDTH, height=HEIGHT))
    assert frame.width == WIDTH


@pytest.mark.parametrize(("made", "damage"), OWN_FILES, indirect=["made"])
def test_bad_item_is_reported_and_skipped(made: tuple[str, Path], damage: str) -> None:
    kind, root = made
    fixture = FIXTURES[kind]
    names = [f.name for f in read_all(kind, root)]
    if damage == "image":
        assert fixture.images is not None
        image = fixture.images(root)[1]
        image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    else:
        assert fixture.bad_depth is not None
        fixture.bad_depth(root)
    problems: list[str] = []
    assert [f.name for f in read_all(kind, root, on_error=problems.append)] == [names[0], names[2]]
    assert len(problems) == 1 and "\n" not in problems[0]
    assert re.search(r"1(_[a-z_]+)?\.", problems[0])  # names the file
    with pytest.raises(InputError) as error:
        read_all(kind, root)
    assert str(error.value) == problems[0]


@pytest.mark.parametrize("made", FROM_FILES, indirect=True)
def test_every_format_is_recognised(made: tuple[str, Path]) -> None:
    """And another reader says so, where it finds nothing."""
    kind, root = made
    assert kind in sources.resembles(root)
    assert len(sources.resembles(root)) <= 2
    with pytest.raises(InputError, match=rf"is unknown.*looks like .*{kind}"):
        sources.read("nope", root)
    with pytest.raises(InputError, match=rf"looks like .*{kind}"):
        sources.read("tum" if kind != "tum" else "kitti_object", root)


@pytest.mark.parametrize("made", FROM_FILES, indirect=True)
def test_limit_and_undistort_are_for_every_reader(made: tuple[str, Path]) -> None:
    kind, root = made
    frames = read_all(kind, root, limit=2, undistort=True)
    assert len(frames) == 2
    assert all(f.camera.model == "pinhole" and f.valid.any() for f in frames)
    with pytest.raises(InputError, match="limit must be at least 1"):
        read_all(kind, root, limit=0)


@pytest.mark.parametrize("kind", FROM_FILES)
def test_empty_missing_and_unknown(kind: str, tmp_path: Path) -> None:
    require(kind)
    with pytest.raises(InputError, match=r"expected|no such file") as error:
        sources.read(kind, tmp_path)
    assert "looks like" not in str(error.value)
    with pytest.raises(InputError, match="no such folder"):
        sources.read(kind, tmp_path / "absent")
    with pytest.raises(InputError, match="give a path"):
        sources.read(kind)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        sources.read(kind, tmp_path / "file")
    with pytest.raises(InputError, match="no option bogus"):
        sources.read(kind, tmp_path, bogus=1)


@pytest.mark.parametrize("kind", list(sources.READERS))
def test_options_take_their_own_defaults_and_nothing_else(kind: str, tmp_path: Path) -> None:
    options = sources.READERS[kind].options()
    assert options and not {"path", "on_error"} & set(options)
    for name, option in options.items():
        assert option.takes(option.default) and option.wants()
        with pytest.raises(InputError, match=rf"^source {kind}: option {name} must be .*, got <object") as error:
            sources.read(kind, tmp_path, **{name: object()})
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "option", "takes", "refuses"),
    [
        ("folder", "depth_scale", [1000, 0.5, np.float32(2), None], ["1000", True, [1000]]),
        ("colmap", "min_track", [2, np.int64(3)], [2.5, "2", True, None]),
        ("colmap", "metric", [True], [1, "yes", None]),
        ("colmap", "images", ["images", Path("images"), None], [0, True]),
        ("tum", "camera", ["fr1", None, Camera.from_fov(60, 4, 3)], [1]),
        ("procedural", "photos", ["photos", Path("photos"), None], [[], ()]),
    ],
)
def test_types_of_options(kind: str, option: str, takes: list[Any], refuses: list[Any]) -> None:
    known = sources.READERS[kind].options()[option]
    assert [value for value in takes if not known.takes(value)] == []
    assert [value for value in refuses if known.takes(value)] == []


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("folder", {"depth_scale": float("nan")}),
        ("folder", {"depth_scale": -1}),
        ("folder", {"fov_x": 180}),
        ("tum", {"max_gap": -0.1}),
        ("tum", {"camera": "fr9"}),
        ("kitti_raw", {"camera": "00"}),
    ],
)
def test_bad_values_of_options_are_refused_before_any_frame(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    FIXTURES[kind].build(tmp_path)
    with pytest.raises(InputError, match=rf"^source {kind}: {next(iter(options))} .*"):
        sources.read(kind, tmp_path, **options)


def test_unknown_kind_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="folder, colmap, tum"):
        sources.read("nope", ".")


# ---------------------------------------------------------------- real data


@needs_shared
def test_colmap_of_a_real_kitchen() -> None:
    require("colmap")
    root = SHARED / "raw/colmap_7scenes"
    ratios, n = [], 0
    frames = sources.read("colmap", root / "sparse_metric/0", images=str(root / "images"), metric=True)
    for frame in frames:
        truth = read_depth(SHARED / "train/tsdf_7scenes" / frame.name / "depth.png", 1000.0)  # 400x300, images 640x480
        v, u = np.nonzero(frame.valid)
        reference = truth[v * truth.shape[0] // frame.height, u * truth.shape[1] // frame.width]
        ratios.append(frame.depth[v, u] / reference)
        n += 1
    assert n == 63
    assert np.nanmedian(np.concatenate(ratios)) == pytest.approx(0.986, abs=0.002)


@needs_shared
def test_folder_reads_the_shared_frames() -> None:
    names = ["slambook_icl/1", "promptda/example", "opencalib/calib"]
    frames = {n: list(sources.read("folder", SHARED / "validation" / n, fov_x=65)) for n in names}
    assert all(len(f) == 1 for f in frames.values())
    tof = frames["promptda/example"][0]
    assert (tof.width, tof.sensor, tof.valid.sum()) == (1280, "tof", 256 * 192)
    assert frames["opencalib/calib"][0].sensor == "lidar" and frames["slambook_icl/1"][0].kind == "rendered"


#: sample -> (frames, name of one frame, its valid depths, their median in metres)
GOLDEN = {
    "colmap_hospital": (28, "000093", 260, 1.5493),
    "tum_desk": (2, "tum_desk/1.000000", 204859, 1.5020),
    "lidar_street": (1, "2020_01_01_drive_0001_sync/image_02/0000000000", 10168, 25.3793),
    "heldout": (5, "posecnn_ycb/000001", 224197, 0.9640),
}


@pytest.mark.parametrize("name", samples.SAMPLES)
def test_bundled_samples(name: str) -> None:
    require(samples.SAMPLES[name])
    frames = {f.name: f for f in sources.read(samples.SAMPLES[name], samples.path(name))}
    count, frame, valid, median = GOLDEN[name]
    assert len(frames) == count
    depth = frames[frame].depth[frames[frame].valid]
    assert depth.size == valid
    assert np.median(depth) == pytest.approx(median, abs=1e-3)
    assert all(f.scale == "metric" and f.licence != "not stated" for f in frames.values())


def test_samples_are_small_and_attributed() -> None:
    root = samples.path("heldout").parent
    size = sum(f.stat().st_size for f in root.rglob("*") if f.is_file() and f.suffix != ".pyc")
    assert size < 4_500_000
    attribution = (root / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert all(f"`{name}" in attribution for name in samples.SAMPLES)
    with pytest.raises(InputError, match="colmap_hospital, tum_desk"):
        samples.path("nope")
