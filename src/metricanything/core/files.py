"""Files that are either whole or absent: write to a temporary name, then rename."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from metricanything.core.errors import InputError


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_FULL = 64 * 1024  # bytes; a disk with less left is full as far as any file of ours is concerned

# Read once: the only way to read it also sets it, which two threads that write at once would do to each other.
_UMASK = _umask()


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that becomes `path` when the block succeeds.

    The temporary file keeps the suffix of `path`, so that libraries which choose a format by suffix work.
    When the block raises (a full disk, an interrupt), the temporary file is removed and `path` is untouched.
    Raises InputError when `path` is a folder or lies where no file can be made, and OSError (ENOSPC) when the disk is
    full, also where a library reports that as a bare RuntimeError, as OpenEXR and PyTorch do.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a folder; give the name of a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.stem[:32]}.", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose a writable folder") from None
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_UMASK)
        os.replace(temporary, path)
    except RuntimeError as error:
        # Asked before the temporary file is removed, which would make room again.
        if shutil.disk_usage(path.parent).free >= _FULL:
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8 to `path` atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON to `path` atomically; NaN and inf are refused (they are not JSON)."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file; raise `InputError` with the file's name when it is missing or malformed."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a readable file") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error}); correct the file or write it again") from None


def lock(file: IO[Any], busy: str) -> None:
    """Lock an open file until it is closed, which it is at the latest when the process ends, whatever ends it.

    Raises InputError with the message `busy` when another process holds it. Nothing happens on systems without such
    locks.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise InputError(busy) from None


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file in hexadecimal; read once per run as long as its size and time of change stay."""
    status = Path(path).stat()
    return _sha256(str(Path(path).resolve()), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _sha256(path: str, size: int, changed: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
