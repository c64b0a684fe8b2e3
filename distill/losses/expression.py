"""A loss as a line of text: `kl(t=2) + 3*cwd(t=4) + feature(layer4)`.

A sum of terms, each the name of a loss with an optional weight before it and, in parentheses, an optional feature map
and options. The text is parsed as Python, and never evaluated.
"""

import ast
import inspect
import math
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from deploy.errors import UserError, did_you_mean
from distill.losses.registry import DISTILLATION_LOSSES, Loss

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
"""What an option may be, by its name; all others may be 0 or more."""


@dataclass(frozen=True)
class Term:
    """`weight * loss(feature, **options)`."""

    weight: float
    """> 0."""
    loss: str
    feature: str | None = None
    """None where logits are compared."""
    options: Mapping[str, float] = field(default_factory=dict, hash=False)
    """Those that were given, checked; int where the default is one."""


def parse_terms(
    text: str, methods: Mapping[str, Loss] = DISTILLATION_LOSSES, example: str = EXAMPLE
) -> tuple[Term, ...]:
    """The terms of a sum of losses, in its order.

    Args:
        text: such as `kl(t=2) + 3*cwd(t=4) + feature(layer4)`.
        methods: the losses that may be named.
        example: what a message gives as an example.

    Raises:
        UserError: it is no such sum, or names a loss, an option or a value that does not exist.
    """
    source = " ".join(text.split())
    if not source:
        raise UserError(f"the loss is empty; write a sum such as {example}")
    try:
        with warnings.catch_warnings(action="ignore"):  # Python's advice on odd literals
            tree = ast.parse(source, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise UserError(
            f"{source!r} is not a sum of losses ({reason}); write one such as {example}"
        ) from None
    return tuple(_term(node, source, methods, example) for node in _summands(tree.body))


def format_terms(terms: Collection[Term]) -> str:
    """The one way to write these terms; `parse_terms` reads it back."""
    return " + ".join(_format(term) for term in terms)


def _format(term: Term) -> str:
    arguments = [] if term.feature is None else [term.feature]
    arguments += [f"{name}={_digits(value)}" for name, value in sorted(term.options.items())]
    weight = "" if term.weight == 1 else f"{_digits(term.weight)}*"
    return f"{weight}{term.loss}" + (f"({', '.join(arguments)})" if arguments else "")


def _digits(value: float) -> str:
    return repr(value).removesuffix(".0")


def _summands(node: ast.expr) -> Iterator[ast.expr]:
    """What is added up, from left to right."""
    pending = [node]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            pending += [node.right, node.left]
        else:
            yield node


def _term(node: ast.expr, source: str, methods: Mapping[str, Loss], example: str) -> Term:
    written = ast.get_source_segment(source, node)
    weight = 1.0
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        number, node = _number(node.left), node.right
        if number is None:
            raise UserError(f"{written}: write the weight as a number before the loss, as in {example}")
        if not (number > 0 and math.isfinite(number)):
            raise UserError(
                f"{written}: the weight is {number:g}; it must be above 0 (leave the loss out to drop it)"
            )
        weight = float(number)
    call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
    if not isinstance(call.func, ast.Name):
        hint = did_you_mean(str(written), methods)
        raise UserError(
            f"{written} is not a loss{hint}; write a sum, with weights above 0, such as {example}"
        )
    name = call.func.id
    if name not in methods:
        raise UserError(
            f"no loss is called {name}{did_you_mean(name, methods)}; there are {', '.join(methods)}"
        )
    return Term(
        weight, name, _feature(call, name, methods, source), _options(call, name, methods[name], source)
    )


def _feature(call: ast.Call, name: str, methods: Mapping[str, Loss], source: str) -> str | None:
    """The feature map that a call names."""
    on = methods[name].on
    if not call.args:
        if on == "features":
            raise UserError(f"{name} compares features: say which, as in {name}(layer4); {FEATURES}")
        return None
    written = ", ".join(str(ast.get_source_segment(source, argument)) for argument in call.args)
    if on == "logits":
        others = ", ".join(other for other in methods if methods[other].on != "logits")
        hint = f"; features are compared by {others}" if others else ""
        raise UserError(
            f"{name}({written}): {name} takes the output alone; write options as name=number{hint}"
        )
    argument = call.args[0]
    if len(call.args) > 1 or not isinstance(argument, ast.Name):
        raise UserError(f"{name}({written}): name one feature, then options as name=number; {FEATURES}")
    return argument.id


def _options(call: ast.Call, name: str, method: Loss, source: str) -> dict[str, float]:
    """The options of a call, checked."""
    defaults = {
        parameter.name: parameter.default
        for parameter in inspect.signature(method.function).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY and isinstance(parameter.default, int | float)
    }
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
    """The value of a literal number with an optional sign; None for anything else."""
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
