"""What all readers share: one error for every kind of bad file, and a size limit checked before allocation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from metricanything.core.errors import InputError

#: Largest image or depth map that is read; just below the size that Pillow itself refuses.
MAX_PIXELS = 178_000_000


@contextmanager
def reading(name: str | Path, what: str) -> Iterator[None]:
    """Raise `InputError`, naming the file, for whatever the block raises while it reads `name` as `what`.

    Decoders raise a dozen unrelated types on damaged files (OSError, SyntaxError, struct.error, zlib.error, ...);
    no list of them is complete, hence the broad clause.
    """
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{name}: no such file; check the path") from None
    except (IsADirectoryError, PermissionError) as error:
        raise InputError(f"{name}: cannot be opened ({error.strerror}); give a readable file") from None
    except Exception as error:
        # Pillow names the object in memory that it read from, address and all.
        reason = (str(error) or type(error).__name__).splitlines()[0].split(" <_io.")[0]
        raise InputError(
            f"{name}: not a readable {what} ({reason}); check that the file is complete and of this kind"
        ) from error


def check_size(name: str | Path, width: int, height: int) -> None:
    """Raise `InputError` for an empty image or one above `MAX_PIXELS`; call it before allocating pixels."""
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise InputError(
            f"{name}: image size {width}x{height} is not between 1 and {MAX_PIXELS // 10**6} million pixels; "
            "resize it first"
        )
