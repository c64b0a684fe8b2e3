"""How the sections of a configuration check their own fields."""

import math

from deploy.errors import UserError


class FieldError(UserError):
    """A field of a configuration has a value that is invalid, independent of the other sections.

    Args:
        section: section of the field as on the command line, such as "augment"; "train" stands for both trainings.
        field: name of the field on the command line.
        problem: its value and the requirement that it violates.
    """

    def __init__(self, section: str, field: str, problem: str) -> None:
        self.section, self.field, self.problem = section, field, problem
        super().__init__(f"--{section}.{field} {problem}")


def require(condition: bool, section: str, field: str, problem: str) -> None:
    """Raise `FieldError` unless the condition holds."""
    if not condition:
        raise FieldError(section, field, problem)


def at_least(minimum: int, section: str, field: str, value: int) -> None:
    """Raise `FieldError` for a value below the minimum."""
    require(value >= minimum, section, field, f"{value}: must be at least {minimum}")


def not_negative(section: str, field: str, value: float) -> None:
    """Raise `FieldError` for a value that is negative, infinite or NaN."""
    require(0 <= value < math.inf, section, field, f"{value}: must be at least 0 and finite")
