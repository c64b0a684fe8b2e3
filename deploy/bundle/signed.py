"""What changes of a bundle do to its signature (`deploy.signing`): they are told, as the new content is not covered."""

from pathlib import Path

from deploy.bundle.manifest import SIGNATURE
from deploy.errors import warn


def warn_if_signed(folder: Path, what: str) -> None:
    """Warn that a signed bundle has to be signed again.

    Args:
        folder: the bundle, before or after the change.
        what: is not covered.
    """
    if (folder / SIGNATURE).exists():
        warn(f"{folder}: its signature does not cover {what}; sign it again, by edgedistill sign")
