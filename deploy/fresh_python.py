"""Command lines that start Python afresh."""

import sys
from collections.abc import Sequence

# As option -P does from Python 3.11 on: files of the working directory are not imported instead of packages.
_WITHOUT_WORKING_DIRECTORY = "import sys; sys.path = [entry for entry in sys.path if entry]\n"


def python_command(code: str, arguments: Sequence[str] = ()) -> list[str]:
    """The command that runs `code` in a fresh interpreter, with `arguments` in `sys.argv[1:]`.

    What it imports is what this interpreter has installed, or what PYTHONPATH names; never files that happen to lie in
    the working directory.
    """
    return [sys.executable, "-c", _WITHOUT_WORKING_DIRECTORY + code, *arguments]
