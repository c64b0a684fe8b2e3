"""Networks saved by the package transformers: in a folder, in the hub's cache, or on the hub."""

from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import hf_hub_download

from deploy.errors import UserError
from deploy.files.json_files import read_json
from teacher.external.origin import Origin, require
from teacher.hub import cached_file, why_unreachable

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
"""Names of weights that are read; others are pickled."""
SAVE_IT = "save it to a folder where there is a network (save_pretrained), and give hf/<folder>"
"""What to do about a network that cannot be fetched."""


class Place(NamedTuple):
    """Where a network's files are."""

    name: str
    """A folder, or a repository of the hub."""
    local: bool
    """Whether the hub is not to be asked."""


def locate(name: str) -> Place:
    """Find a network's files.

    Args:
        name: a folder with `config.json`, or a repository of the hub, such as
            `nvidia/segformer-b0-finetuned-cityscapes-512-1024`.

    Raises:
        UserError: there is no such folder, or the repository is neither cached nor can the hub be reached.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / CONFIG).is_file():
            raise UserError(
                f"hf/{name}: the folder has no {CONFIG}; give one that save_pretrained has written"
            )
        return Place(str(folder), True)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError(f"hf/{name}: no such folder; give one that save_pretrained has written")
    if cached_file(name, (CONFIG,)) is not None:
        return Place(name, True)
    if reason := why_unreachable():
        raise UserError(
            f"hf/{name}: is neither a folder nor in the hub's cache, and cannot be fetched: {reason}; {SAVE_IT}"
        )
    return Place(name, False)


def read_config(name: str) -> tuple[Place, Any]:
    """The place of a network, and its configuration.

    Raises:
        UserError: transformers is not installed, or there is no such network or it is not readable.
    """
    transformers = quiet_transformers(f"hf/{name}")
    place = locate(name)
    try:
        config = transformers.AutoConfig.from_pretrained(
            place.name, local_files_only=place.local, trust_remote_code=False
        )
    except Exception as error:  # of its fetchers and parsers; also where a network brings its own code
        raise UserError(f"hf/{name}: its configuration cannot be read ({first_line(error)})") from error
    return place, config


def hf_origin(name: str) -> Origin:
    """What the weights of a network say of themselves: its classes, and how its images were normalized.

    Raises:
        UserError: as `read_config`, or `preprocessor_config.json` is not readable.
    """
    place, config = read_config(name)
    classes = tuple(str(config.id2label[index]) for index in sorted(config.id2label))
    path = _file(place, PREPROCESSOR)
    if path is None:
        return Origin(f"hf/{name}", classes, (), ())
    try:
        settings = read_json(path, dict[str, Any])
        scale = (
            1 / float(settings.get("rescale_factor", 1 / 255)) if settings.get("do_rescale", True) else 1.0
        )
        mean, std = (
            tuple(float(v) * scale for v in settings.get(key) or ()) for key in ("image_mean", "image_std")
        )
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise UserError(f"{path}: cannot be read ({first_line(error)})") from error
    if settings.get("do_normalize", True) is False:
        mean, std = (0.0,) * len(mean), (scale,) * len(mean)
    return Origin(f"hf/{name}", classes, mean, std)


def require_weights(name: str, place: Place) -> Place:
    """The place of a network whose weights are to be loaded.

    Raises:
        UserError: it has no weights in safetensors, or they are neither cached nor can the hub be reached.
    """
    if Path(place.name).is_dir():
        if not any((Path(place.name) / file).is_file() for file in WEIGHTS):
            raise UserError(
                f"hf/{name}: the folder has no {WEIGHTS[0]}; files of other formats are not read, as they may run code:"
                " load it where you trust it, and save_pretrained(FOLDER) writes safetensors"
            )
        return place
    if cached_file(place.name, WEIGHTS) is not None:
        return place
    if reason := why_unreachable():
        raise UserError(
            f"hf/{name}: its weights are not in the hub's cache, and cannot be fetched: {reason}; {SAVE_IT}"
        )
    return Place(place.name, False)


def hf_place(name: str) -> str | None:
    """Where the weights of a network lie on this machine; None if they would be downloaded.

    Raises:
        UserError: as `locate`.
    """
    place = locate(name)
    if Path(place.name).is_dir():
        return place.name
    path = cached_file(place.name, WEIGHTS)
    return None if path is None else str(path)


def quiet_transformers(what: str) -> Any:
    """The package transformers without its progress bars and remarks.

    Raises:
        UserError: it is not installed.
    """
    transformers = require("transformers", "hf", what)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, at most 200 characters; its type if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _file(place: Place, name: str) -> Path | None:
    """A file of a network; None if it has none of this name."""
    path = Path(place.name) / name
    if path.is_file():
        return path
    if Path(place.name).is_dir():
        return None
    if place.local:
        return cached_file(place.name, (name,))
    try:
        return Path(hf_hub_download(place.name, name))
    except Exception:  # the repository has no such file
        return None
