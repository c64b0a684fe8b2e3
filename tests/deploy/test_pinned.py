"""One network in several processes: chosen once, loaded once in each, and another bundle is refused."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import pytest

from deploy import pinned
from deploy.backends.setting import BF16
from deploy.errors import UserError
from deploy.loading import load
from deploy.pinned import code_digest, open_pinned, pin
from tests.deploy.tiny import make_bundle, make_image


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    make_bundle(tmp_path / "bundle")
    return tmp_path / "bundle"


def test_the_choice_of_auto_is_named(tiny):
    chosen = pin(tiny, "auto", "auto", 1)
    assert chosen.engine == load(tiny, "auto", 1).engine.name
    assert pin(tiny, "onnxruntime", "auto", None).engine == "onnxruntime fp32"
    assert Path(chosen.bundle).is_absolute()


def test_precision_of_a_named_backend_is_that_of_load(int8_bundle):
    for precision in ("auto", "fp32", "int8"):
        chosen = pin(int8_bundle, "onnxruntime", precision, 1)
        assert chosen.engine == load(int8_bundle, "onnxruntime", 1, precision=precision).engine.name
        assert open_pinned(chosen).model.engine.name == chosen.engine


def test_bf16_that_auto_chose_is_opened(tiny):
    pytest.importorskip("openvino", reason="openvino is not installed (pip install -e '.[dev]')")
    chosen = msgspec.structs.replace(pin(tiny, "openvino", "fp32", 1), precision=BF16)
    assert open_pinned(chosen).model.engine.name == "openvino bf16"


def test_all_threads_of_a_process_share_one_network(tiny, monkeypatch):
    opened = []
    open_cpu = pinned.open_cpu
    monkeypatch.setattr(pinned, "open_cpu", lambda *given: opened.append(given) or open_cpu(*given))
    chosen = pin(tiny, "onnxruntime", "auto", 1)
    with ThreadPoolExecutor(8) as pool:
        models = list(pool.map(lambda _: open_pinned(chosen).model, range(16)))
    assert len(opened) == 1
    assert len({id(one) for one in models}) == 1
    np.testing.assert_array_equal(
        models[0](make_image()).labels, load(tiny, "onnxruntime", 1)(make_image()).labels
    )


def test_another_bundle_is_refused(tiny):
    chosen = pin(tiny, "onnxruntime", "auto", 1)
    make_bundle(tiny, resize="tile")
    with pytest.raises(UserError, match=r"bundle: is another bundle here \(digest \w{12}, not \w{12}\)"):
        open_pinned(chosen)
    make_bundle(tiny)
    (tiny / "model.onnx").write_bytes(b"")
    with pytest.raises(UserError, match=r"model\.onnx: has 0 bytes"):
        open_pinned(chosen)


def test_numbers_tell_networks_apart(tiny, tmp_path):
    make_bundle(tmp_path / "sar", "sar")
    first, second = (
        open_pinned(pin(one, "onnxruntime", "auto", 1)).numbers for one in (tiny, tmp_path / "sar")
    )
    assert first
    assert first != second


def test_a_bundle_without_an_engine_for_the_backend(tiny):
    with pytest.raises(UserError, match="has no engine for tensorrt"):
        pin(tiny, "tensorrt", "auto", None)
    with pytest.raises(UserError, match="has no int8 model"):
        pin(tiny, "onnxruntime", "int8", None)


def test_code_is_compared_by_its_content(tmp_path, monkeypatch):
    (tmp_path / "a.py").write_text("x = 1")
    monkeypatch.setattr(pinned, "PACKAGE", tmp_path)
    first = code_digest.__wrapped__()
    (tmp_path / "a.py").write_text("x = 2")
    assert code_digest.__wrapped__() != first
    (tmp_path / "a.py").write_text("x = 1")
    (tmp_path / "notes.txt").write_text("")
    assert code_digest.__wrapped__() == first


def test_other_code_is_refused(tiny):
    chosen = pin(tiny, "onnxruntime", "auto", 1)
    assert chosen.code == code_digest()
    with pytest.raises(
        UserError, match="is other code of edgedistill than that of the client; install the same"
    ):
        open_pinned(msgspec.structs.replace(chosen, code="0"))
