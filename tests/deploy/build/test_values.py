"""Options of `edgedistill build` with values that are no numbers of their kind."""

import pytest

from deploy import build_engine
from deploy.errors import UserError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch", "many"], r"--batch many: give one size"),
        (["--max-drop", "-1"], r"--max-drop -1: give a fraction"),
        (["--min-agreement", "98"], r"--min-agreement 98: give a fraction"),
    ],
)
def test_refused_values_are_named(arguments, message, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        build_engine.main([str(tmp_path), "--backend", "onnxruntime", *arguments])
    assert "\n" not in str(caught.value)
