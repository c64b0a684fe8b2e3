"""The `edgedistill` command, also as `python -m edgedistill`."""

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from edgedistill import __version__, import_neighbors


def entry() -> NoReturn:
    """The console script."""
    try:
        import_neighbors()
        if "_ARGCOMPLETE" in os.environ:  # a shell asks for completions
            from distill.completion import complete

            complete()
        from deploy.errors import exit_with_one_line  # our `deploy`, which `import_neighbors` has found
    except KeyboardInterrupt:
        sys.exit(130)
    exit_with_one_line(lambda: main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Run `edgedistill argv…` and return its exit code."""
    if list(argv) in (["-V"], ["version"]) or list(argv[-1:]) == ["--version"]:
        print(f"edgedistill {__version__}")
        return 0
    import_neighbors()
    from distill import cli  # our `distill`, which `import_neighbors` has found

    return cli.main(argv)


if __name__ == "__main__":
    entry()
