"""How a run went."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from deploy.text import shown


@dataclass
class Report:
    """Counts of inputs, and what is wrong with those that could not be predicted."""

    total: int
    before: int = 0
    """Done by an earlier run."""
    done: int = 0
    """Done by this run."""
    failures: list[str] = field(default_factory=list)

    def fail(self, error: str | None, path: str) -> None:
        """Note that an input could not be predicted, and why."""
        text = error or "unknown error"
        self.failures.append(text if path in text else f"{path}: {text}")

    def line(self, what: str, engine: str, out: Path) -> str:
        """The last line of the output.

        Args:
            what: the inputs, such as "images".
            engine: which network predicted them.
            out: where the results are.
        """
        earlier = f", {self.before} of them by an earlier run" if self.before else ""
        count = self.before + self.done
        return f"{count} of {self.total} {what} predicted by {engine}{earlier}; results in {out}"

    def print_failures(self, what: str) -> None:
        """Print the failures to stderr, at the very end, where they are not overlooked among thousands."""
        if self.failures:
            print(f"{len(self.failures)} of {self.total} {what} could not be predicted:", file=sys.stderr)
            for text in sorted(self.failures):
                print(f"error: {shown(text)}", file=sys.stderr)
            print("mend or remove them, then continue with --resume", file=sys.stderr)
