"""`python -m deploy`: the commands that work on a device."""

import sys

try:
    from deploy.errors import exit_with_one_line
except KeyboardInterrupt:
    sys.exit(130)


def _main() -> int:
    from deploy.cli import main  # here, so that Ctrl-C while numpy is imported is one line, too

    return main(sys.argv[1:])


if __name__ == "__main__":
    exit_with_one_line(_main)
