"""Whether weights can be downloaded: asked once, with a short timeout, because the libraries retry for a minute."""

from functools import cache
from pathlib import Path

import torch
from huggingface_hub import constants, get_session, try_to_load_from_cache

SECONDS = 3.0
"""Longest time to wait for a host's answer."""


@cache
def why_unreachable(url: str = constants.ENDPOINT) -> str:
    """Why a host cannot be asked for files; empty if it answers.

    Args:
        url: of the host or a file there. By default the hub of Hugging Face, which `HF_ENDPOINT` can set.
    """
    if constants.is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    try:
        get_session().head(url, timeout=SECONDS)
    except Exception as error:  # whatever the installed HTTP client raises without a network
        return f"{url} does not answer ({type(error).__name__})"
    return ""


def cached_file(repository: str, names: tuple[str, ...]) -> Path | None:
    """The first of these files of a repository that lies in the hub's cache; None if there is none.

    Args:
        repository: such as `timm/resnet50.a1_in1k`, with `@revision` after it where it is not the main one.
        names: of files.
    """
    repo, _, revision = repository.partition("@")
    for name in names:
        found = try_to_load_from_cache(repo, name, revision=revision or None)
        if isinstance(found, str):
            return Path(found)
    return None


def downloaded_file(url: str) -> Path | None:
    """The file that torch's own downloads of a URL leave in its cache; None if it is not there."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    return path if path.is_file() else None
