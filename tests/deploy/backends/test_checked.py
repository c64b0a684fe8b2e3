"""checked.py: what a network returns is compared with the manifest at every call."""

import numpy as np
import pytest

from deploy.backends.checked import CheckedEngine
from deploy.errors import UserError
from tests.deploy.tiny import SPECS

GOOD = {"labels": np.full((2, 32, 48), 2, np.uint8), "logits": np.zeros((2, 3, 4, 6), np.float32)}


class Returning:
    name, file = "fake fp32", None

    def __init__(self, **outputs):
        self.outputs = GOOD | outputs

    def run(self, batch):
        return self.outputs


def run(**outputs):
    return CheckedEngine(Returning(**outputs), SPECS["rgb"], 3, 3).run(np.zeros((2, 32, 48, 3), np.uint8))


def test_good_outputs_are_passed_on_as_they_are():
    outputs = run()
    assert outputs["labels"] is GOOD["labels"]
    assert outputs["logits"] is GOOD["logits"]
    run(logits=np.zeros((2, 3, 32, 48), np.float32))  # any stride


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (
            {"labels": GOOD["labels"].astype(np.int64)},
            r"labels int64 \(2, 32, 48\), the manifest tells uint8",
        ),
        ({"labels": GOOD["labels"][:1]}, r"labels uint8 \(1, 32, 48\)"),
        ({"labels": GOOD["labels"][:, :9]}, r"labels uint8 \(2, 9, 48\)"),
        ({"labels": GOOD["labels"] + np.uint8(1)}, r"label 3, the bundle has 3 classes \(0..2\)"),
        ({"logits": GOOD["logits"].astype(np.float16)}, "logits float16"),
        ({"logits": GOOD["logits"][:, :2]}, r"logits float32 \(2, 2, 4, 6\)"),
        ({"logits": GOOD["logits"][0]}, r"logits float32 \(3, 4, 6\)"),
        ({"logits": GOOD["logits"][..., :0]}, r"logits float32 \(2, 3, 4, 0\)"),
    ],
)
def test_other_outputs_are_refused(outputs, message):
    with pytest.raises(UserError, match=f"fake fp32: returned {message}"):
        run(**outputs)


def test_a_label_that_is_no_class_is_found_anywhere():
    labels = GOOD["labels"].copy()
    labels[1, -1, -1] = 255
    with pytest.raises(UserError, match="label 255"):
        run(labels=labels)
