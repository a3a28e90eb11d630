"""Files are whole or absent: a write that fails leaves the old file as it was and nothing beside it."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from metricanything.core import files
from metricanything.core.errors import InputError
from metricanything.core.files import atomic_path, read_json, write_bytes, write_json, write_text
from metricanything.models.compact.encoder import EncoderConfig


def test_text_bytes_and_json_round_trip(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "folder" / "a.txt", "Tiefe 3 µm\n")
    assert (tmp_path / "new" / "folder" / "a.txt").read_text(encoding="utf-8") == "Tiefe 3 µm\n"
    write_bytes(tmp_path / "b.bin", b"\x00\xff")
    assert (tmp_path / "b.bin").read_bytes() == b"\x00\xff"
    write_json(tmp_path / "c.json", {"cam_in": [1.5, 2.0], "name": "é"})
    assert read_json(tmp_path / "c.json") == {"cam_in": [1.5, 2.0], "name": "é"}


def test_a_second_write_replaces_the_first(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "a long first version")
    write_text(path, "short")
    assert path.read_text() == "short"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_temporary_keeps_the_suffix_and_lies_beside_the_file(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "depth.exr") as temporary:
        assert temporary.suffix == ".exr"
        assert temporary.parent == tmp_path
        assert not (tmp_path / "depth.exr").exists()
        temporary.write_bytes(b"x")
    assert os.listdir(tmp_path) == ["depth.exr"]


def test_permissions_are_those_of_an_ordinary_file(tmp_path: Path) -> None:
    (tmp_path / "ordinary").write_text("")
    write_text(tmp_path / "ours", "")
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE((tmp_path / "ordinary").stat().st_mode)


def test_writing_leaves_the_umask_of_the_process_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading it means setting it; two threads that did so at once could leave it at 0."""

    def refuse(_: int) -> int:
        raise AssertionError("the umask was set")

    monkeypatch.setattr(files.os, "umask", refuse)
    write_text(tmp_path / "a.txt", "x")


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("failure", [full_disk, interrupt])
@pytest.mark.parametrize("where", ["write", "fsync", "chmod", "replace"])
@pytest.mark.parametrize("exists", [True, False])
def test_failure_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Callable[..., None], where: str, exists: bool
) -> None:
    path = tmp_path / "a.txt"
    if exists:
        path.write_text("old")
    if where in ("fsync", "replace"):
        monkeypatch.setattr(files.os, where, failure)
    else:
        monkeypatch.setattr(Path, {"write": "write_bytes", "chmod": "chmod"}[where], failure)
    with pytest.raises((OSError, KeyboardInterrupt)):
        write_text(path, "new")
    monkeypatch.undo()
    assert os.listdir(tmp_path) == (["a.txt"] if exists else [])
    if exists:
        assert path.read_text() == "old"


def test_failure_half_way_through_a_library_write(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_path(path) as temporary:
        temporary.write_text("ne")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def runtime_error(temporary: Path) -> None:
    temporary.write_bytes(b"half")
    raise RuntimeError("unexpected pos 64 vs 0")  # what PyTorch says of a full disk


@pytest.mark.parametrize("free", [0, 10_000, 10**9])
def test_a_full_disk_is_called_so_whatever_the_library_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int
) -> None:
    path = tmp_path / "depth.exr"
    path.write_bytes(b"old")
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - free, free))
    with pytest.raises((OSError, RuntimeError)) as error, atomic_path(path) as temporary:
        runtime_error(temporary)
    if free == 10**9:
        assert isinstance(error.value, RuntimeError)
    else:
        assert isinstance(error.value, OSError)
        assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(path))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["depth.exr"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte; needs the right to mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run(
            [mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("no small file system can be mounted here")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_really_full_disk(small_disk: Path) -> None:
    import torch

    from metricanything.core import codecs
    from metricanything.models.checkpoint import save_model

    depth = np.random.default_rng(0).uniform(1, 9, (1000, 1000)).astype(np.float32)
    points = np.stack([depth] * 3, axis=-1)
    network = torch.nn.Linear(1000, 1000)
    network.config = EncoderConfig()
    writers: dict[str, Callable[[Path], object]] = {
        "a.exr": lambda path: codecs.write_depth_exr(path, depth),
        "a.npy": lambda path: codecs.write_depth_npy(path, depth),
        "a.ply": lambda path: codecs.write_ply(path, points.reshape(-1, 3)),
        "a.glb": lambda path: codecs.write_glb(path, points // 10 + 1, np.zeros(points.shape, np.uint8), depth > 0),
        "a.safetensors": lambda path: save_model(path, network, "compact-depthmap"),
    }
    for name, write in writers.items():
        with pytest.raises(OSError) as error:
            write(small_disk / name)
        assert error.value.errno == errno.ENOSPC, name
        assert os.listdir(small_disk) == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc here")
def test_where_the_system_makes_no_files() -> None:
    for path in ("/proc/x", "/proc/x/depth.png"):
        with pytest.raises(InputError, match=f"^{path}: cannot be written"):
            write_text(path, "x")


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        write_text(tmp_path / ("a" * 300 + ".txt"), "x")


def test_places_where_no_file_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "a.txt", tmp_path / "file" / "deep" / "a.txt"):
        with pytest.raises(InputError) as error:
            write_text(path, "x")
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)
    assert os.listdir(tmp_path) == ["file"]


def test_json_that_is_no_json_is_refused_and_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"depth": float("nan")})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"depth": object()})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": }', b"\xff\xfe\x00", b"[" * 100_000, b"\x00" * 40])
def test_bad_json_names_the_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "camera.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"camera\.json") as error:
        read_json(path)
    assert "\n" not in str(error.value)


def test_missing_json_and_folder_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_json(tmp_path / "absent.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_json(tmp_path)
