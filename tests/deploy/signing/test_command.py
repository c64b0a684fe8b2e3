"""The commands keygen, sign, verify --key and sbom."""

import json

import pytest

from deploy.bundle.bundle_files import read_manifest, set_decision, write_bundle
from deploy.cli import main
from deploy.errors import UserError
from tests.conftest import run_python
from tests.deploy.tiny import make_bundle, make_manifest


def test_from_a_new_key_to_a_verified_bundle(tmp_path, capsys):
    make_bundle(tmp_path / "b")
    key, public = tmp_path / "k.pem", tmp_path / "k.pub.pem"
    assert main(["keygen", str(key)]) == 0
    assert main(["sign", str(tmp_path / "b"), "--key", str(key)]) == 0
    capsys.readouterr()
    assert main(["verify", str(tmp_path / "b"), "--key", str(public), "--backend", "onnxruntime"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "signed by key" in lines[0]
    assert "passed" in lines[-1]


def test_verify_refuses_another_key_also_in_the_sandbox(signed, key, other, capsys):
    for more in ([], ["--sandbox"]):
        with pytest.raises(UserError, match="none of the trusted keys"):
            main(["verify", str(signed), "--key", str(other.public), *more])
    both = ["--key", str(other.public), "--key", str(key.public)]
    assert main(["verify", str(signed), *both, "--backend", "onnxruntime"]) == 0
    capsys.readouterr()


def test_dropped_signatures_are_named(signed, key, other, capsys):
    with pytest.warns(RuntimeWarning, match="sign it again"):
        set_decision(signed, 0.9, None)
    assert main(["sign", str(signed), "--key", str(other.private)]) == 0
    assert key.id[:16] in capsys.readouterr().err
    assert main(["sign", str(signed), "--key", str(key.private)]) == 0
    assert "note" not in capsys.readouterr().err


def test_uncovered_files_are_named_on_stderr(signed, key, capsys):
    (signed / "notes.txt").write_text("")
    assert main(["sign", str(signed), "--key", str(key.private)]) == 0
    assert "notes.txt" in capsys.readouterr().err


def test_sbom_is_written(signed, tmp_path, capsys):
    assert main(["sbom", str(signed)]) == 0
    printed = capsys.readouterr().out
    assert main(["sbom", str(signed), "--out", str(tmp_path / "bom.json")]) == 0
    assert (tmp_path / "bom.json").read_text() == printed
    assert (
        json.loads(printed)["metadata"]["component"]["hashes"][0]["content"] == read_manifest(signed).digest
    )


def test_without_cryptography_only_signatures_are_refused(signed, key):
    """The base install of a device does not have it."""
    code = f"""
import sys
sys.modules["cryptography"] = None
import deploy
from deploy.errors import UserError
print(deploy.load({str(signed)!r}, "onnxruntime").engine.name)
try:
    deploy.load({str(signed)!r}, "onnxruntime", trusted_keys=[{str(key.public)!r}])
except UserError as error:
    print(error)
"""
    lines = run_python(code).stdout.splitlines()
    assert lines[0] == "onnxruntime fp32"
    assert "pip install 'edgedistill[sign]'" in lines[1]


def test_a_manifest_does_not_list_a_signature(tmp_path):
    with pytest.raises(ValueError, match=r"signature\.json"):
        write_bundle(tmp_path / "b", make_manifest(), {"signature.json": b"{}"})
