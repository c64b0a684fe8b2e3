"""An engine is native code: nothing beside it can vouch for it."""

import json
import shlex

import pytest

import deploy
from deploy import cli
from deploy.backends import auto as choice
from deploy.backends.gpu_options import GpuOptions
from deploy.backends.open import open_engine
from deploy.backends.tensorrt_gpu import engine as trt
from deploy.backends.tensorrt_gpu.compatibility import check_trusted
from deploy.bundle.engine_files import read_sidecar, write_engine
from deploy.errors import UserError
from deploy.files.atomic import sha256_file
from deploy.signing.bundle import sign_bundle
from deploy.signing.keys import read_private
from tests.deploy.backends.tensorrt_gpu.engines import add_engine, add_foreign
from tests.deploy.signing.signed import make_key


def test_a_foreign_engine_is_not_deserialized(bundle, library):
    path = add_foreign(bundle)
    library.module.Runtime = None
    with pytest.raises(UserError) as refused:
        trt.open_trt(bundle, "tensorrt")
    message = str(refused.value)
    assert (
        f"{path}: is native code that was neither built nor trusted on this machine by this user" in message
    )
    assert (
        f"trust it by `edgedistill trust {path}`, or build it again: edgedistill build {bundle} " in message
    )
    assert "\n" not in message


def test_the_commands_of_the_refusal_work(bundle, library, capsys):
    path = add_foreign(bundle)
    with pytest.raises(UserError) as refused:
        trt.open_trt(bundle, "tensorrt")
    command = str(refused.value).split("`")[1]
    assert cli.main(shlex.split(command)[1:]) == 0
    assert trt.open_trt(bundle, "tensorrt").file == path
    assert cli.main(["trust", "--remove", str(bundle)]) == 0
    with pytest.raises(UserError, match="is native code"):
        trt.open_trt(bundle, "tensorrt")
    assert capsys.readouterr().out.count("\n") == 2
    assert cli.main(["trust", str(bundle), "--json"]) == 0
    [engine] = json.loads(capsys.readouterr().out)["engines"]
    assert (engine["engine"], engine["trusted"]) == (str(path), True)


def test_explicit_trust(bundle, library):
    path = add_foreign(bundle)
    assert trt.open_trt(bundle, "tensorrt", options=GpuOptions(trust_engines=True)).file == path


def test_a_trusted_one_is_taken_instead(bundle, library):
    good = add_engine(bundle, "good")
    path = write_engine(bundle, "newer", b"rubbish", read_sidecar(good))
    assert path.stat().st_mtime_ns >= good.stat().st_mtime_ns
    assert trt.open_trt(bundle, "tensorrt").file == good


def test_auto_does_without(bundle, library, monkeypatch):
    monkeypatch.setattr("deploy.backends.tensorrt_gpu.cuda.why_not", lambda device: "")
    monkeypatch.setattr(choice, "installed", lambda: ["onnxruntime"])
    add_foreign(bundle)
    with pytest.warns(RuntimeWarning, match="is native code that was neither built nor trusted"):
        assert open_engine(bundle).name == "onnxruntime fp32"


def test_with_a_key_only_what_it_has_signed(bundle, library):
    path = add_engine(bundle)  # trusted by this user, which is not enough
    signed = GpuOptions(signed=frozenset({sha256_file(path)}))
    assert trt.open_trt(bundle, "tensorrt", options=signed).file == path
    with pytest.raises(UserError, match="no trusted key has signed it"):
        trt.open_trt(bundle, "tensorrt", options=GpuOptions(signed=frozenset()))


def test_a_signed_bundle(bundle, library, tmp_path):
    pytest.importorskip("cryptography")
    key = make_key(tmp_path, "maker")
    path = add_foreign(bundle)
    sign_bundle(bundle, read_private(key.private))
    assert deploy.load(bundle, "tensorrt", trusted_keys=[key.public]).engine.file == path
    with pytest.raises(UserError, match="is native code"):
        deploy.load(bundle, "tensorrt")
    with pytest.raises(UserError, match="trust_engines: with trusted_keys only signed engines"):
        deploy.load(bundle, "tensorrt", trusted_keys=[key.public], trust_engines=True)


def test_what_is_checked_is_what_is_loaded(bundle, library, monkeypatch):
    """Even if the file is replaced after the check."""
    path = add_engine(bundle)

    def swap(*arguments):
        check_trusted(*arguments)
        path.write_bytes(b"another")

    monkeypatch.setattr(trt, "check_trusted", swap)
    assert trt.open_trt(bundle, "tensorrt")  # the fake loads nothing but the first bytes
