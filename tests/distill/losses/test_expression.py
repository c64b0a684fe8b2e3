"""Losses as a line of text."""

import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.errors import UserError
from distill.losses.common import cross_entropy
from distill.losses.expression import RANGES, Term, format_terms, parse_terms
from distill.losses.registry import DISTILLATION_LOSSES, GRASP_LOSSES, SEGMENTATION_LOSSES, Loss
from distill.losses.task_loss import parse_task_terms


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("kl", [Term(1, "kl")]),
        (
            "kl(t=2) + 3*cwd(t=4) + feature(layer4)",
            [Term(1, "kl", None, {"t": 2}), Term(3, "cwd", None, {"t": 4}), Term(1, "feature", "layer4")],
        ),
        ("2 * cwd(layer4, t=4)", [Term(2, "cwd", "layer4", {"t": 4})]),
        ("0.5*kl() + kl(t=4)", [Term(0.5, "kl"), Term(1, "kl", None, {"t": 4})]),
        (
            "kl + (mse + 1e-3*dist)\n + maps",
            [Term(1, "kl"), Term(1, "mse"), Term(1e-3, "dist"), Term(1, "maps")],
        ),
        ("skd(head, pool=4.0)", [Term(1, "skd", "head", {"pool": 4})]),
        ("+2*boundary(edge=+1)", [Term(2, "boundary", None, {"edge": 1})]),
        ("cirkd(head, batch=0)", [Term(1, "cirkd", "head", {"batch": 0})]),
    ],
)
def test_terms(text, terms):
    assert parse_terms(text) == tuple(terms)


def test_whole_numbers_stay_whole():
    """`radius` sizes a window: 3.0 would be refused by torch."""
    (term,) = parse_terms("boundary(radius=3.0, t=2)")
    assert {name: type(value) for name, value in term.options.items()} == {"radius": int, "t": float}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the loss is empty; write a sum such as kl"),
        (" \n ", "the loss is empty"),
        ("kl +", "'kl \\+' is not a sum of losses"),
        ("2kl", "is not a sum of losses"),
        ("kl(", "is not a sum of losses"),
        ("\0", "is not a sum of losses"),
        ("+".join(["kl"] * 20_000), "a loss of 59999 characters; write a sum such as kl"),
        ("kll", r"no loss is called kll \(did you mean kl\?\); there are kl, hard, cwd, mse, dist, boundary"),
        ("2*ce", "no loss is called ce; there are kl"),
        ("cwd(T=4)", "cwd has no option T; it has t"),
        ("dist(intr=1)", r"dist has no option intr \(did you mean intra\?\); it has t, inter, intra"),
        ("mse(t=1)", "mse has no option t; it has none"),
        ("kl(**t)", r"kl has no option \*\*; it has t"),
        ("kl(student=1)", "kl has no option student; it has t"),
        ("cirkd(head, memory=1)", "cirkd has no option memory; it has t, batch, pixel, region"),
        ("kl(t=two)", r"kl\(t=two\): t must be a number, above 0; the default is 1"),
        ("kl(t='2')", "must be a number"),
        ("kl(t=True)", "must be a number"),
        ("kl(t=2j)", "must be a number"),
        ("kl(t=1+1)", "must be a number"),
        ("kl(t=1, t=2)", "kl: the option t is given twice"),
        ("kl(t=0)", r"kl\(t=0\): t must be a number, above 0"),
        ("cwd(layer4, t=-1)", r"cwd\(t=-1\): t must be a number, above 0; the default is 4"),
        ("kl(t=1e999)", "must be a number"),
        (f"kl(t=1{'0' * 400})", "must be a number"),
        (f"kl(t={'-' * 600}1)", "must be a number|is not a sum"),
        ("boundary(radius=1.5)", "radius must be a whole number, 1 or more; the default is 3"),
        ("boundary(radius=0)", "1 or more"),
        ("boundary(edge=1.1)", "edge must be a number, from 0 to 1; the default is 0.5"),
        ("at(layer4, p=0.5)", "1 or more"),
        ("maps(beta=-1)", "0 or more"),
        ("feature", r"feature compares features: .* feature\(layer4\); a PSPNet has layer3, layer4, head"),
        ("skd(pool=2)", "a PSPNet has layer3, layer4, head"),
        ("at('layer4')", "name one feature, then options as name=number; a PSPNet has layer3"),
        ("at(layer3, layer4)", r"at\(layer3, layer4\): name one feature"),
        ("at(*layers)", "name one feature"),
        ("cwd(4)", "name one feature"),
        ("kl(layer4)", r"kl\(layer4\): kl takes no feature; .* compared by cwd, mse, feature, cosine, at"),
        ("kl(4)", "options as name=number"),
        ("kl - mse", "kl - mse is not a loss; write a sum, with weights above 0"),
        ("mse + -kl", "-kl is not a loss"),
        ("-2*kl", r"-2\*kl: the weight is -2; it must be above 0"),
        ("0*kl", r"0\*kl: the weight is 0"),
        ("1e999*kl", "the weight is inf"),
        ("kl*2", r"kl\*2: write the weight as a number before the loss"),
        ("2*3*kl", "write the weight as a number before"),
        ("True*kl", "write the weight as a number before"),
        ("kl**2", "is not a loss"),
        ("3", "3 is not a loss"),
        ("a.kl", "a.kl is not a loss"),
        ("kl()()", "is not a loss"),
        ("__import__('os')", "no loss is called __import__"),
    ],
)
def test_mistakes_are_named_in_one_line(text, message):
    with pytest.raises(UserError, match=message) as error:
        parse_terms(text)
    assert "\n" not in str(error.value)


def test_options_are_the_keywords_with_a_number():
    assert DISTILLATION_LOSSES["boundary"].options == {"t": 1.0, "radius": 3, "edge": 0.5}
    assert "memory" not in DISTILLATION_LOSSES["cirkd"].options
    assert SEGMENTATION_LOSSES["ce"].options == {}
    for loss in [*DISTILLATION_LOSSES.values(), *SEGMENTATION_LOSSES.values(), *GRASP_LOSSES.values()]:
        parameters = inspect.signature(loss.function).parameters.values()
        keywords = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
        assert loss.options.keys() == keywords - {"memory"}


def a_number(name, default):
    if isinstance(default, int):
        return st.integers(1, 99)
    return st.floats(0.01, 1) if name in ("edge", "quality") else st.floats(1, 1e30)


@st.composite
def a_term(draw):
    name = draw(st.sampled_from(list(DISTILLATION_LOSSES)))
    on = DISTILLATION_LOSSES[name].on
    names = st.sampled_from(["layer3", "layer4", "head"])
    feature = draw({"logits": st.none(), "features": names, "either": st.none() | names}[on])
    numbers = {key: a_number(key, default) for key, default in DISTILLATION_LOSSES[name].options.items()}
    options = draw(st.fixed_dictionaries({}, optional=numbers))
    return Term(draw(st.floats(1e-30, 1e30)), name, feature, options)


@given(st.lists(a_term(), min_size=1, max_size=5))
def test_format_is_read_back(terms):
    text = format_terms(terms)
    assert parse_terms(text) == tuple(terms)
    assert format_terms(parse_terms(text)) == text


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("1.0 * kl()+ 3*cwd( layer4,t = 4.00 )", "kl + 3*cwd(layer4, t=4)"),
        ("dist(t=2, intra=.5, inter=0)", "dist(inter=0, intra=0.5, t=2)"),
    ],
)
def test_canonical_form(text, canonical):
    assert format_terms(parse_terms(text)) == canonical


def test_terms_can_be_looked_up():
    assert len({Term(1, "kl", None, {"t": 2}), Term(1, "kl", None, {"t": 2.0})}) == 1


def test_other_losses_can_be_summed():
    def dice(logits, label, valid, *, smooth=1.0, weights=None):
        raise NotImplementedError

    losses = {"ce": Loss(cross_entropy, on="logits"), "dice": Loss(dice, on="logits")}
    assert parse_terms("ce + 0.5*dice(smooth=0)", losses) == (
        Term(1, "ce"),
        Term(0.5, "dice", None, {"smooth": 0}),
    )
    with pytest.raises(UserError, match="no loss is called kl; there are ce, dice"):
        parse_terms("kl", losses)
    with pytest.raises(UserError, match="dice has no option weights; it has smooth"):
        parse_terms("dice(weights=1)", losses)
    with pytest.raises(UserError, match=r"ce\(layer4\): ce takes no feature; write options as name=number$"):
        parse_terms("ce(layer4)", losses)


def test_task_losses():
    assert parse_task_terms("ce + 0.5*dice(p=2) + 2*lovasz(per_image=0)", SEGMENTATION_LOSSES) == (
        Term(1, "ce"),
        Term(0.5, "dice", None, {"p": 2}),
        Term(2, "lovasz", None, {"per_image": 0}),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"the loss is empty; write a sum such as ce \+ 0\.5\*dice"),
        ("ce -", r"'ce -' is not a sum of losses .* such as ce \+ 0\.5\*dice"),
        ("kl(t=2)", "no loss is called kl; there are ce, balanced_ce, focal, dice"),
        ("focl", r"no loss is called focl \(did you mean focal\?\)"),
        ("balanced-ce", r"balanced-ce is not a loss \(did you mean balanced_ce\?\); write a sum"),
        ("dice(smooth=1)", "dice has no option smooth; it has p, per_image"),
        ("ce(class_weights=1)", "ce has no option class_weights; it has none"),
        ("lovasz(per_image=2)", "per_image must be a whole number, 0 or 1; the default is 1"),
        ("focal(alpha=2)", "alpha must be a number, from 0 to 1; the default is 0.5"),
        ("focal(gamma=-1)", "gamma must be a number, 0 or more; the default is 2"),
        ("dice(layer4)", "dice takes no feature; write options as name=number$"),
        ("dice*0.5", r"write the weight as a number before the loss, as in ce \+ 0\.5\*dice"),
    ],
)
def test_mistakes_in_task_losses(text, message):
    with pytest.raises(UserError, match=message) as error:
        parse_task_terms(text, SEGMENTATION_LOSSES)
    assert str(error.value).startswith("--loss.task: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", DISTILLATION_LOSSES)
def test_every_default_may_be_written(name):
    loss = DISTILLATION_LOSSES[name]
    feature = "layer4" if loss.on == "features" else None
    term = Term(1, name, feature, loss.options if not loss.memory else {"t": 0.1})
    assert parse_terms(format_terms([term])) == (term,)


@pytest.mark.parametrize("losses", [SEGMENTATION_LOSSES, GRASP_LOSSES])
def test_every_default_of_a_task_loss_may_be_written(losses):
    for name, loss in losses.items():
        term = Term(1, name, None, loss.options)
        assert parse_terms(format_terms([term]), losses) == (term,)


def test_every_range_is_that_of_an_option():
    losses = [*DISTILLATION_LOSSES.values(), *SEGMENTATION_LOSSES.values(), *GRASP_LOSSES.values()]
    known = {option for loss in losses for option in loss.options}
    assert set(RANGES) <= known
