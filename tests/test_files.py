"""Files are whole or absent: a write that fails leaves the old file as it was and nothing beside it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from metricanything.core import files
from metricanything.core.errors import InputError
from metricanything.core.files import atomic_path, read_json, write_bytes, write_json, write_text


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
