"""`python -m deploy`: the commands that work on a device."""

import sys

from deploy.cli import main
from deploy.errors import exit_with_one_line

if __name__ == "__main__":
    exit_with_one_line(lambda: main(sys.argv[1:]))
