"""Weights that others published: found in a local folder, in the Hugging Face cache, or fetched from the Hub."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from metricanything.core.errors import InputError
from metricanything.models.registry import MODELS, HubFile

FOLDER_VARIABLE = "METRICANYTHING_WEIGHTS"
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_COMMON_NAMES = ("model.safetensors", "model.pt")  # what repositories without an entry in the registry hold


def is_repo(name: str) -> bool:
    """Whether a name has the form of a Hub id, `owner/name`."""
    return _REPO.fullmatch(name) is not None


def weights_folder() -> Path:
    """Where weights may be put by hand: `$METRICANYTHING_WEIGHTS`, or ~/.cache/metricanything."""
    return Path(os.environ.get(FOLDER_VARIABLE) or Path.home() / ".cache" / "metricanything")


def find_weights(repo: str) -> Path:
    """A local copy of the weights of a Hub repository.

    Looked for in `weights_folder()/repo`, then in the Hugging Face cache, then on the Hub. Raises InputError that says
    which file is missing, where to get it and where to put it.
    """
    known = [spec.hub for spec in MODELS.values() if spec.hub is not None and spec.hub.repo == repo]
    files = known or [HubFile(repo, name) for name in _COMMON_NAMES]
    for file in files:
        if (local := weights_folder() / file.repo / file.name).is_file():
            return local
    for offline in (True, False):
        if offline or _reachable():
            for file in files:
                if (path := _download(file, offline=offline)) is not None:
                    return path
    names = " or ".join(file.name for file in files)
    raise InputError(
        f"{repo}: {names} is neither on this machine nor can it be fetched from the Hub; get it from {files[0].url} "
        f"and put it at {weights_folder() / repo / files[0].name}, or load it by its path"
    )


def _reachable() -> bool:
    """Whether the Hub's name resolves; without a network, asking it takes half a minute of retries to fail."""
    from huggingface_hub import constants

    if getproxies():
        return True
    try:
        socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, 443)
    except OSError:
        return False
    return True


def _download(file: HubFile, *, offline: bool) -> Path | None:
    """The file in the Hugging Face cache, fetched unless `offline`; None when there is none to be had."""
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError

    try:
        return Path(huggingface_hub.hf_hub_download(file.repo, file.name, local_files_only=offline))
    except GatedRepoError:
        raise InputError(
            f"{file.repo}: its owners ask you to accept their terms; do so at https://huggingface.co/{file.repo} and "
            "log in with `hf auth login`"
        ) from None
    except HFValidationError as error:
        raise InputError(f"{file.repo}: not a Hub id ({' '.join(str(error).split())[:120]})") from None
    except (HfHubHTTPError, OSError, ValueError):  # not found, no network, offline by setting
        return None
