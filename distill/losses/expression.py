"""A loss as a line of text: `kl(t=2) + 3*cwd(t=4) + feature(layer4)`.

The text is a sum of terms. Each term is the name of a loss with an optional weight before it and, in parentheses, an
optional feature map and options. The text is parsed as Python, but never evaluated.
"""

import ast
import math
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from deploy.errors import UserError, did_you_mean
from distill.losses.registry import DISTILLATION_LOSSES, Loss

LONGEST = 1000
"""Characters of a sum of losses."""
EXAMPLE = "kl(t=2) + 3*cwd(t=4)"
FEATURES = "a PSPNet has layer3, layer4, head"

RANGES: Mapping[str, tuple[str, Callable[[float], bool]]] = {
    "t": ("above 0", lambda value: value > 0),
    "p": ("1 or more", lambda value: value >= 1),
    "pool": ("1 or more", lambda value: value >= 1),
    "radius": ("1 or more", lambda value: value >= 1),
    "alpha": ("from 0 to 1", lambda value: 0 <= value <= 1),
    "per_image": ("0 or 1", lambda value: value in (0, 1)),
    "edge": ("from 0 to 1", lambda value: 0 <= value <= 1),
    "quality": ("from 0 to 1", lambda value: 0 <= value <= 1),
}
"""Allowed values of options, by name: in words, and as a check. All other options may be 0 or more."""


@dataclass(frozen=True)
class Term:
    """`weight * loss(feature, **options)`."""

    weight: float
    """> 0."""
    loss: str
    feature: str | None = None
    """None if logits are compared."""
    options: Mapping[str, float] = field(default_factory=dict, hash=False)
    """Options that are written out, checked; int where the default is an int."""


def parse_terms(
    text: str, losses: Mapping[str, Loss] = DISTILLATION_LOSSES, example: str = EXAMPLE
) -> tuple[Term, ...]:
    """Parse a sum of losses.

    Args:
        text: such as `kl(t=2) + 3*cwd(t=4) + feature(layer4)`.
        losses: the losses that may be named.
        example: a sum that messages show as an example.

    Returns:
        The terms in the order of the text.

    Raises:
        UserError: the text is not such a sum, names an unknown loss or option, or gives a value that is not allowed.
    """
    source = " ".join(text.split())
    if not source:
        raise UserError(f"the loss is empty; write a sum such as {example}")
    if len(source) > LONGEST:
        raise UserError(f"a loss of {len(source)} characters; write a sum such as {example}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # syntax warnings of Python on odd literals
            tree = ast.parse(source, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise UserError(
            f"{source!r} is not a sum of losses ({reason}); write one such as {example}"
        ) from None
    return tuple(_term(node, source, losses, example) for node in _summands(tree.body))


def format_terms(terms: Collection[Term]) -> str:
    """The canonical text of terms; `parse_terms` reads it back."""
    return " + ".join(_format(term) for term in terms)


def _format(term: Term) -> str:
    arguments = [] if term.feature is None else [term.feature]
    arguments += [f"{name}={_digits(value)}" for name, value in sorted(term.options.items())]
    weight = "" if term.weight == 1 else f"{_digits(term.weight)}*"
    return f"{weight}{term.loss}" + (f"({', '.join(arguments)})" if arguments else "")


def _digits(value: float) -> str:
    return repr(value).removesuffix(".0")


def _summands(node: ast.expr) -> Iterator[ast.expr]:
    """The operands of a sum, from left to right."""
    pending = [node]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            pending += [node.right, node.left]
        else:
            yield node


def _term(node: ast.expr, source: str, losses: Mapping[str, Loss], example: str) -> Term:
    written = ast.get_source_segment(source, node)
    weight = 1.0
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        number, node = _number(node.left), node.right
        if number is None:
            raise UserError(f"{written}: write the weight as a number before the loss, as in {example}")
        if not (number > 0 and math.isfinite(number)):
            raise UserError(
                f"{written}: the weight is {number:g}; it must be above 0 (to drop the loss, leave it out)"
            )
        weight = float(number)
    call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
    if not isinstance(call.func, ast.Name):
        hint = did_you_mean(str(written), losses)
        raise UserError(
            f"{written} is not a loss{hint}; write a sum, with weights above 0, such as {example}"
        )
    name = call.func.id
    if name not in losses:
        raise UserError(
            f"no loss is called {name}{did_you_mean(name, losses)}; there are {', '.join(losses)}"
        )
    return Term(
        weight, name, _feature(call, name, losses, source), _options(call, name, losses[name], source)
    )


def _feature(call: ast.Call, name: str, losses: Mapping[str, Loss], source: str) -> str | None:
    """The feature map that a call names, if any."""
    on = losses[name].on
    if not call.args:
        if on == "features":
            raise UserError(f"{name} compares features: say which, as in {name}(layer4); {FEATURES}")
        return None
    written = ", ".join(str(ast.get_source_segment(source, argument)) for argument in call.args)
    if on == "logits":
        others = ", ".join(other for other in losses if losses[other].on != "logits")
        hint = f"; features are compared by {others}" if others else ""
        raise UserError(f"{name}({written}): {name} takes no feature; write options as name=number{hint}")
    argument = call.args[0]
    if len(call.args) > 1 or not isinstance(argument, ast.Name):
        raise UserError(f"{name}({written}): name one feature, then options as name=number; {FEATURES}")
    return argument.id


def _options(call: ast.Call, name: str, loss: Loss, source: str) -> dict[str, float]:
    """The options of a call, checked."""
    defaults = loss.options
    options: dict[str, float] = {}
    for keyword in call.keywords:
        option = keyword.arg
        if option is None or option not in defaults:
            known = f"it has {', '.join(defaults)}" if defaults else "it has none"
            raise UserError(
                f"{name} has no option {option or '**'}{did_you_mean(option or '', defaults)}; {known}"
            )
        if option in options:
            raise UserError(f"{name}: the option {option} is given twice")
        where = f"{name}({option}={ast.get_source_segment(source, keyword.value)})"
        options[option] = _value(keyword.value, where, option, defaults[option])
    return options


def _value(node: ast.expr, where: str, option: str, default: float) -> float:
    value = _number(node)
    allowed, fits = RANGES.get(option, ("0 or more", lambda value: value >= 0))
    whole = isinstance(default, int)
    if value is None or not math.isfinite(value) or not fits(value) or (whole and value != int(value)):
        kind = "a whole number" if whole else "a number"
        raise UserError(f"{where}: {option} must be {kind}, {allowed}; the default is {_digits(default)}")
    return int(value) if whole else float(value)


def _number(node: ast.expr) -> float | None:
    """The value of a number literal with any signs before it; None for anything else."""
    sign = 1.0
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        sign, node = (-1.0 if isinstance(node.op, ast.USub) else 1.0), node.operand
    value = node.value if isinstance(node, ast.Constant) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return sign * value
    except OverflowError:  # an integer beyond all floats
        return sign * math.inf
