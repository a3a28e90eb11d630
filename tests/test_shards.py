"""Shards: what goes in comes out, in the same bytes every time, readable by others, and never by halves."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import pickle
import shutil
import tarfile
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metricanything.core import codecs
from metricanything.core.camera import Camera
from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.curate.codec import Encoding
from metricanything.curate.index import Columns, read_table, write_table
from metricanything.curate.shards import Shards
from metricanything.curate.writing import write_shards

MakeFrame = Callable[..., Frame]


@pytest.fixture
def frames(make_frame: MakeFrame) -> list[Frame]:
    """Five frames that use every field: two sources, sigma, a pose, distortion, unknown depth, a name in Unicode."""
    rng = np.random.default_rng(0)
    pose = np.eye(4)
    pose[:3, 3] = (0.1, -2.5, 1e-7)
    plain, second = make_frame(0), make_frame(1)
    lidar = np.where(rng.random(second.depth.shape) < 0.03, second.depth, np.float32(np.nan))
    lens = second.camera
    distorted = Camera.opencv(
        lens.fx, lens.fy, lens.cx, lens.cy, lens.width, lens.height, distortion=(0.1, -0.05, 0.001, 0.002, 0.01)
    )
    sigma = np.where(np.isfinite(lidar), np.float32(0.02), np.float32(np.nan))
    real = {"kind": "captured", "sensor": "lidar", "source": "drive", "licence": "CC-BY-4.0"}
    notes = {"rain": True, "run": [1, 2], "who": "Åse"}
    return [
        plain,
        dataclasses.replace(plain, name="drive/Å 1", depth=lidar, sigma=sigma, camera=distorted, notes=notes, **real),
        dataclasses.replace(second, name="planes/up", scale="up_to_scale", world_from_cam=pose),
        make_frame(2, 30, 50),
        dataclasses.replace(plain, name="empty", depth=np.full_like(plain.depth, np.nan)),
    ]


def test_round_trip(frames: list[Frame], tmp_path: Path) -> None:
    assert write_shards(frames, tmp_path / "out", frames_per_shard=2) == 5
    shards = Shards(tmp_path / "out")
    assert len(shards) == 5
    assert shards.sources() == [frame.source for frame in frames]
    assert shards.kinds() == [frame.kind for frame in frames]
    for i in (3, 0, 4, 1, 2):  # any order
        wanted, found = frames[i], shards.frame(i)
        for field in ("name", "camera", "kind", "sensor", "source", "licence", "scale", "notes"):
            assert getattr(found, field) == getattr(wanted, field), field
        assert_depth(found.depth, wanted.depth)
        if wanted.sigma is None:
            assert found.sigma is None
        else:
            assert_depth(found.sigma, wanted.sigma)
        if wanted.world_from_cam is None:
            assert found.world_from_cam is None
        else:
            np.testing.assert_array_equal(found.world_from_cam, wanted.world_from_cam)
        assert np.abs(found.image.astype(int) - wanted.image).mean() < 3  # JPEG


def assert_depth(found: np.ndarray, wanted: np.ndarray) -> None:
    finite = np.isfinite(wanted)
    np.testing.assert_array_equal(found[~finite], wanted[~finite])  # NaN and inf
    assert (np.abs(found[finite] - wanted[finite]) <= wanted[finite] * codecs.log_png_error(wanted)).all()


def test_same_frames_same_bytes(frames: list[Frame], tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_shards(iter(frames), tmp_path / name, frames_per_shard=2)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["index.arrow", "shard-000000.tar", "shard-000001.tar", "shard-000002.tar"]
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_tar_follows_the_webdataset_convention(frames: list[Frame], tmp_path: Path) -> None:
    """Members of a sample share the key before the first dot and follow each other."""
    write_shards(frames, tmp_path, frames_per_shard=3)
    seen: list[str] = []
    for shard in sorted(tmp_path.glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                assert member.isfile()
                key, suffix = member.name.split(".", 1)
                if not seen or seen[-1] != key:
                    assert key not in seen
                    seen.append(key)
                data = tar.extractfile(member).read()
                if suffix == "jpg":
                    assert codecs.decode_image(data, member.name).shape == frames[int(key)].image.shape
                elif suffix == "json":
                    assert json.loads(data)["name"] == frames[int(key)].name
                else:
                    assert suffix in ("depth.png", "sigma.png")
                    assert codecs.decode_depth_log_png(data, member.name).shape == frames[int(key)].depth.shape
    assert seen == [f"{i:08d}" for i in range(5)]


def test_webdataset_reads_them(frames: list[Frame], tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed (extra `dev`)")
    write_shards(frames, tmp_path, frames_per_shard=3)
    urls = [str(path) for path in sorted(tmp_path.glob("*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8"))
    assert len(samples) == len(frames)
    for sample, frame in zip(samples, frames, strict=True):
        assert sample["json"]["name"] == frame.name and sample["json"]["scale"] == frame.scale
        assert sample["jpg"].shape == frame.image.shape and sample["jpg"].dtype == np.uint8
        assert ("sigma.png" in sample) == (frame.sigma is not None)


def test_exact_encodings(frames: list[Frame], tmp_path: Path) -> None:
    write_shards(frames, tmp_path, encoding=Encoding(image="png", depth="exr"))
    with tarfile.open(tmp_path / "shard-000000.tar") as tar:
        assert tar.getnames()[3:7] == [f"00000001.{suffix}" for suffix in ("png", "depth.exr", "sigma.png", "json")]
    shards = Shards(tmp_path)
    for number, frame in enumerate(frames):
        found = shards.frame(number)
        np.testing.assert_array_equal(found.image, frame.image)
        np.testing.assert_array_equal(found.depth, frame.depth)


# ---------------------------------------------------------------- the index


def test_columns(frames: list[Frame], tmp_path: Path) -> None:
    write_shards(frames, tmp_path, frames_per_shard=2)
    shards = Shards(tmp_path)
    for name, of in {
        "name": lambda f: f.name,
        "source": lambda f: f.source,
        "kind": lambda f: f.kind,
        "sensor": lambda f: f.sensor,
        "scale": lambda f: f.scale,
        "licence": lambda f: f.licence,
        "camera_model": lambda f: f.camera.model,
        "width": lambda f: f.width,
        "height": lambda f: f.height,
        "kept": lambda f: True,
        "reasons": lambda f: "",
        "hash": lambda f: 0,
    }.items():
        assert shards.column(name).tolist() == [of(frame) for frame in frames], name
    for name, number in {
        "fx": lambda f: f.camera.fx,
        "fov": lambda f: f.camera.fov_x,
        "valid": lambda f: f.valid.mean(),
        "depth_p05": lambda f: np.quantile(f.depth[f.valid], 0.05) if f.valid.any() else np.nan,
        "depth_p50": lambda f: np.median(f.depth[f.valid]) if f.valid.any() else np.nan,
        "depth_p95": lambda f: np.quantile(f.depth[f.valid], 0.95) if f.valid.any() else np.nan,
    }.items():
        found = shards.column(name)
        assert found.dtype == np.float32
        # Quantiles of a few hundred pixels are between two neighbours, hence the tolerance.
        np.testing.assert_allclose(found, [number(frame) for frame in frames], rtol=0.02, err_msg=name)
    codes, texts = shards.coded("source")
    assert [texts[code] for code in codes] == [frame.source for frame in frames]
    assert shards.kept.tolist() == list(range(5))
    with pytest.raises(InputError, match=r"index\.arrow: no column speed; it has name, source"):
        shards.column("speed")
    with pytest.raises(InputError, match="column fx is not coded; coded are source, kind"):
        shards.coded("fx")
    with pytest.raises(IndexError):
        shards.frame(5)


def test_numbers_are_views_of_the_file(frames: list[Frame], tmp_path: Path) -> None:
    """Not copies, so that opening and every worker process cost nothing."""
    write_shards(frames, tmp_path)
    table = read_table(tmp_path / "index.arrow")
    address = table["fx"].chunk(0).buffers()[1].address
    assert Columns(table, tmp_path)["fx"].ctypes.data == address
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line]
    start, end = (int(value, 16) for value in mapped[0].split()[0].split("-"))
    assert start <= address < end


def test_an_index_of_another_folder_is_noticed(frames: list[Frame], tmp_path: Path) -> None:
    write_shards(frames[:2], tmp_path / "a")
    write_shards(frames[1::-1], tmp_path / "b")
    shutil.copy(tmp_path / "a" / "index.arrow", tmp_path / "b" / "index.arrow")
    with pytest.raises(InputError, match=r"shard-000000\.tar"):
        Shards(tmp_path / "b").frame(0)


def _names(shards: Shards, numbers: list[int]) -> list[str]:
    return [shards.frame(number).name for number in numbers]


@pytest.mark.parametrize("how", ["fork", "spawn", "threads"])
def test_one_object_in_many_places(frames: list[Frame], tmp_path: Path, how: str) -> None:
    write_shards(frames, tmp_path, frames_per_shard=2)
    shards, expected = Shards(tmp_path), [frame.name for frame in frames]
    if how == "threads":
        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(_names, [shards] * 8, [[0, 1, 2, 3, 4]] * 8)) == [expected] * 8
        return
    assert len(pickle.dumps(shards)) < 500
    with ProcessPoolExecutor(1, multiprocessing.get_context(how)) as processes:
        assert processes.submit(_names, shards, [0, 1, 2, 3, 4]).result() == expected


def test_progress_sees_every_frame(frames: list[Frame], tmp_path: Path) -> None:
    seen: list[str] = []
    write_shards(frames, tmp_path, progress=lambda frame: seen.append(frame.name))
    assert seen == [frame.name for frame in frames]


def test_frames_are_let_go_as_they_are_written(make_frame: MakeFrame, tmp_path: Path) -> None:
    """So memory does not grow with the number of frames in a shard."""
    given: list[weakref.ref[Frame]] = []
    alive: list[int] = []

    def source() -> Iterator[Frame]:
        for number in range(12):
            frame = make_frame(number, 20, 30)
            given.append(weakref.ref(frame))
            yield frame
            del frame
            alive.append(sum(reference() is not None for reference in given))

    assert write_shards(source(), tmp_path, frames_per_shard=12) == 12
    assert max(alive) <= 2


@pytest.mark.parametrize(("count", "sizes"), [(1, [1]), (2, [2]), (3, [2, 1]), (4, [2, 2])])
def test_shards_are_filled_in_order(make_frame: MakeFrame, tmp_path: Path, count: int, sizes: list[int]) -> None:
    write_shards((make_frame(n, 20, 30) for n in range(count)), tmp_path, frames_per_shard=2)
    assert Shards(tmp_path).column("shard").tolist() == [n for n, size in enumerate(sizes) for _ in range(size)]
    assert len(sizes) == len(list(tmp_path.glob("*.tar")))


def test_a_shard_holds_at_least_one_frame(frames: list[Frame], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="frames_per_shard must be at least 1"):
        write_shards(frames, tmp_path / "out", frames_per_shard=0)


def test_no_frames(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no frames to write"):
        write_shards([], tmp_path / "out")
    assert not (tmp_path / "out" / "index.arrow").exists()


# ---------------------------------------------------------------- interrupted writing


def tars(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def test_full_disk_leaves_no_index_and_no_half_shard(
    frames: list[Frame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = tarfile.TarFile.addfile

    def full(self: tarfile.TarFile, header: tarfile.TarInfo, file: Any = None) -> None:
        if header.name == "00000003.depth.png":
            raise OSError(28, "No space left on device")
        add(self, header, file)

    monkeypatch.setattr(tarfile.TarFile, "addfile", full)
    with pytest.raises(OSError, match="No space left"):
        write_shards(frames, tmp_path / "out", frames_per_shard=2)
    assert tars(tmp_path / "out") == ["shard-000000.tar"]
    with pytest.raises(InputError, match=r"no index\.arrow; not a shard folder, or its writing was interrupted"):
        Shards(tmp_path / "out")


def test_failing_source_leaves_no_index(frames: list[Frame], tmp_path: Path) -> None:
    def source() -> Iterator[Frame]:
        yield from frames[:3]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(source(), tmp_path / "out", frames_per_shard=2)
    assert tars(tmp_path / "out") == ["shard-000000.tar"]


def test_failing_at_once_keeps_the_earlier_set(frames: list[Frame], tmp_path: Path) -> None:
    def source() -> Iterator[Frame]:
        yield frames[4]
        raise KeyboardInterrupt

    write_shards(frames, tmp_path, frames_per_shard=2)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(KeyboardInterrupt):
        write_shards(source(), tmp_path, frames_per_shard=2)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_interrupted_rewriting_does_not_keep_the_old_index(frames: list[Frame], tmp_path: Path) -> None:
    """The old index would point into new shards."""
    write_shards(frames, tmp_path, frames_per_shard=2)

    def source() -> Iterator[Frame]:
        yield from frames[2:4]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(source(), tmp_path, frames_per_shard=2)
    with pytest.raises(InputError, match="no index"):
        Shards(tmp_path)
    write_shards(frames[2:], tmp_path, frames_per_shard=2)
    assert Shards(tmp_path).frame(0).name == frames[2].name


# ---------------------------------------------------------------- damaged shards


@pytest.mark.parametrize("how", ["empty", "text", "cut", "another table", "another version"])
def test_bad_index(frames: list[Frame], tmp_path: Path, how: str) -> None:
    write_shards(frames, tmp_path)
    path = tmp_path / "index.arrow"
    table = read_table(path)
    if how == "another table":
        write_table(path, table.drop_columns(["kept"]))
    elif how == "another version":
        write_table(path, table.replace_schema_metadata({"version": "1"}))
    else:
        path.write_bytes({"empty": b"", "text": b"{}", "cut": path.read_bytes()[:-100]}[how])
    with pytest.raises(InputError, match=r"index\.arrow") as caught:
        Shards(tmp_path)
    assert "\n" not in str(caught.value)
    assert "write the shards again" in str(caught.value)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no index"):
        Shards(tmp_path / "nowhere")


def place(folder: Path, member: str) -> tuple[int, int]:
    """Offset and size of a member of frame 0."""
    with tarfile.open(folder / "shard-000000.tar") as tar:
        header = tar.getmember(f"00000000.{member}")
        return header.offset_data, header.size


@pytest.mark.parametrize("member", ["jpg", "depth.png", "sigma.png", "json"])
@pytest.mark.parametrize("how", ["zeros", "cut", "noise", "removed"])
def test_damaged_bytes_name_the_shard(frames: list[Frame], tmp_path: Path, member: str, how: str) -> None:
    write_shards(frames[1:2], tmp_path)
    path = tmp_path / "shard-000000.tar"
    offset, size = place(tmp_path, member)
    data = bytearray(path.read_bytes())
    if how == "zeros":
        data[offset : offset + size] = bytes(size)
    elif how == "noise":
        data[offset : offset + size] = np.random.default_rng(0).bytes(size)
    elif how == "cut":
        data = data[: offset + size // 2]
    path.write_bytes(data)
    if how == "removed":
        path.unlink()
    with pytest.raises(InputError, match=r"shard-000000\.tar") as caught:
        Shards(tmp_path).frame(0)
    assert "\n" not in str(caught.value)
    assert "write the shards again" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [("camera", {}), ("camera", None), ("kind", "guessed"), ("world_from_cam", [[1.0]]), ("licence", None)],
)
def test_wrong_record_names_the_shard(frames: list[Frame], tmp_path: Path, key: str, value: Any) -> None:
    """A record that is JSON but not ours; None here removes the key."""
    write_shards(frames[:1], tmp_path)
    path = tmp_path / "shard-000000.tar"
    offset, size = place(tmp_path, "json")
    data = path.read_bytes()
    record = json.loads(data[offset : offset + size])
    record[key] = value
    if value is None:
        del record[key]
    text = json.dumps(record, separators=(",", ":")).encode().ljust(size)
    assert len(text) == size
    path.write_bytes(data[:offset] + text + data[offset + size :])
    with pytest.raises(InputError, match=r"shard-000000\.tar") as caught:
        Shards(tmp_path).frame(0)
    assert "\n" not in str(caught.value)
