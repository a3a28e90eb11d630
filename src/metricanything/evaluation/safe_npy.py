"""Reading `.npy` files that hold a dictionary of arrays without running what they might contain.

Such a file is a pickle, and a pickle may call anything. The one reader here admits what numpy itself writes for arrays,
numbers, text and containers, and nothing else.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from metricanything.core.errors import InputError

#: What a pickle of numpy arrays calls: by module without the `_core` / `core` that differs between versions.
_ADMITTED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.multiarray", "_reconstruct"),
    ("numpy.multiarray", "scalar"),
    ("numpy.numeric", "_frombuffer"),
    ("_codecs", "encode"),
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        plain = module.replace("numpy._core.", "numpy.").replace("numpy.core.", "numpy.")
        if (plain, name) not in _ADMITTED:
            raise InputError(f"holds a {module}.{name}, which is not a numpy array and may be code; it was not loaded")
        return super().find_class(module, name)


def read_npy_dict(path: str | Path) -> dict[str, Any]:
    """The dictionary of arrays in a `.npy` file, as `np.save(path, {...})` writes it.

    Raises InputError, without running anything, when the file holds objects that are no numpy arrays, numbers, text,
    lists or dictionaries, and when it is damaged or holds no dictionary.
    """
    path = Path(path)
    remedy = "save a dictionary of numpy arrays: np.save(path, {'rgb': ..., 'dep': ..., 'gt': ..., 'K': ...})"
    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = reader(file)
            if shape != () or not dtype.hasobject:
                raise InputError(f"holds an array {shape} of {dtype}, no dictionary; {remedy}")
            array = _ArraysOnly(file).load()
    except InputError as error:
        raise InputError(f"{path}: {error}" + ("" if remedy in str(error) else f"; {remedy}")) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a readable file") from None
    except Exception as error:  # whatever a damaged pickle makes of its bytes
        raise InputError(f"{path}: damaged ({type(error).__name__}); {remedy}") from None
    value = array.item() if isinstance(array, np.ndarray) and array.shape == () else array
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds a {type(value).__name__}, no dictionary; {remedy}")
    return value
