"""Which bundles `deploy.load(..., trusted_keys=...)` opens, and which it refuses."""

import json
import shutil
import warnings

import numpy as np
import pytest

import deploy
from deploy.bundle.bundle_files import extend_bundle, read_manifest, set_decision, write_bundle
from deploy.bundle.engine_files import record_verdict
from deploy.bundle.manifest import GOLDEN, MODEL, SIGNATURE
from deploy.errors import UserError
from deploy.signing.bundle import check_bundle, sign_bundle, trusted_keys, uncovered
from deploy.signing.keys import read_private
from tests.deploy.precisions import add_engine
from tests.deploy.signing.signed import make_signed
from tests.deploy.tiny import make_bundle, make_image, make_manifest


def load(folder, *keys, backend="onnxruntime"):
    return deploy.load(folder, backend, threads=1, trusted_keys=[key.public for key in keys])


def refusal(folder, *keys, backend="onnxruntime") -> str:
    with pytest.raises(UserError) as caught:
        load(folder, *keys, backend=backend)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_signed_bundle_predicts_as_before(signed, key, tmp_path):
    image = make_image("sar")
    make_bundle(tmp_path / "unsigned", "sar")
    before = deploy.load(tmp_path / "unsigned", "onnxruntime", threads=1)(image).labels
    np.testing.assert_array_equal(load(signed, key)(image).labels, before)
    assert (
        deploy.load(signed, "onnxruntime", trusted_keys=[key.public.read_bytes()]).engine.name
        == "onnxruntime fp32"
    )


def test_what_nobody_signed_is_refused(tmp_path, key):
    make_bundle(tmp_path / "bundle")
    assert "is not signed" in refusal(tmp_path / "bundle", key)


def test_a_signature_of_another_key_is_refused(signed, key, other):
    text = refusal(signed, other)
    assert "none of the trusted keys" in text
    assert key.id[:16] in text
    assert other.id[:16] in text


def test_a_key_id_that_claims_to_be_another_key_is_refused(signed, key, other):
    envelope = json.loads((signed / SIGNATURE).read_text())
    envelope["signatures"][0]["keyid"] = other.id
    (signed / SIGNATURE).write_text(json.dumps(envelope))
    assert "is wrong" in refusal(signed, other)


def test_a_manifest_that_was_edited_after_signing_is_refused(signed, key):
    """Also where its own digest was mended, as `set_decision` does."""
    with pytest.warns(RuntimeWarning, match="sign it again"):
        set_decision(signed, 0.9, None)
    assert "is not the manifest" in refusal(signed, key)


@pytest.mark.parametrize("name", [MODEL, GOLDEN])
def test_a_file_that_was_swapped_is_refused(signed, key, name):
    content = bytearray((signed / name).read_bytes())
    content[-40] ^= 1
    (signed / name).write_bytes(content)
    assert "checksum mismatch" in refusal(signed, key)


def test_the_signature_of_one_bundle_is_none_of_another(signed, key, tmp_path):
    manifest = make_manifest("sar")
    write_bundle(tmp_path / "other", manifest, {MODEL: signed / MODEL, GOLDEN: signed / GOLDEN})
    shutil.copy(signed / SIGNATURE, tmp_path / "other")
    assert "is not the manifest" in refusal(tmp_path / "other", key)


def _other_type(envelope):
    envelope["payloadType"] = "text/plain"


def _other_statement(envelope):
    envelope["payload"] = envelope["payload"][:-8] + "AAAAAAA="


def _no_base64(envelope):
    envelope["payload"] = "***"


def _cut_signature(envelope):
    envelope["signatures"][0]["sig"] = "AAAA"


def _nobody(envelope):
    envelope["signatures"] = []


@pytest.mark.parametrize("damage", [_other_type, _other_statement, _no_base64, _cut_signature, _nobody])
def test_a_damaged_signature_is_refused(signed, key, damage):
    envelope = json.loads((signed / SIGNATURE).read_text())
    damage(envelope)
    (signed / SIGNATURE).write_text(json.dumps(envelope))
    assert str(signed / SIGNATURE) in refusal(signed, key)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\x00", b"{" * 100_000, b'{"payload": 1}'])
def test_a_file_that_is_no_signature_is_refused(signed, key, content):
    (signed / SIGNATURE).write_bytes(content)
    assert "is not a signature" in refusal(signed, key)


def test_no_trusted_key_trusts_nothing(signed, key):
    for keys in ([], str(key.public), key.public):
        with pytest.raises(UserError, match="at least one public key"):
            deploy.load(signed, "onnxruntime", trusted_keys=keys)
    with pytest.raises(UserError, match="verify=False"):
        deploy.load(signed, "onnxruntime", trusted_keys=[key.public], verify=False)


def test_keys_rotate(signed, key, other):
    """Devices trust both keys; the new one signs in addition, then the old one is no longer trusted."""
    assert sign_bundle(signed, read_private(other.private)) == []
    for keys in ([key], [other], [key, other]):
        load(signed, *keys)
    with pytest.warns(RuntimeWarning, match="sign it again"):
        set_decision(signed, 0.9, None)
    assert sign_bundle(signed, read_private(other.private)) == [key.id]
    load(signed, key, other)
    assert "none of the trusted keys" in refusal(signed, key)


def test_signing_again_changes_nothing(signed, key):
    before = (signed / SIGNATURE).read_bytes()
    sign_bundle(signed, read_private(key.private))
    assert (signed / SIGNATURE).read_bytes() == before


def test_a_damaged_bundle_is_not_signed(tmp_path, key):
    make_bundle(tmp_path / "bundle")
    with open(tmp_path / "bundle" / MODEL, "ab") as file:
        file.write(b"x")
    with pytest.raises(UserError, match="instead of"):
        sign_bundle(tmp_path / "bundle", read_private(key.private))


def test_adding_a_file_drops_the_signature_and_says_so(signed, key):
    with pytest.warns(RuntimeWarning, match="sign it again"):
        extend_bundle(signed, {"receipt.json": b"{}"})
    assert "is not signed" in refusal(signed, key)


def test_engines_that_were_added_later_are_not_run(tmp_path, key):
    """Engines are native code: on "auto" and TensorRT they must be covered; a CPU backend does not read them."""
    bundle = make_signed(tmp_path / "bundle", key)
    with pytest.warns(RuntimeWarning, match="does not cover"):
        engine = add_engine(bundle)
    for backend in ("auto", "tensorrt"):
        text = refusal(bundle, key, backend=backend)
        assert "was added after" in text
        assert engine.name in text
    load(bundle, key)

    sign_bundle(bundle, read_private(key.private))
    keys = trusted_keys([key.public])
    check_bundle(bundle, keys, engines=True)
    record_verdict(engine, passed=True)  # its sidecar decides whether it runs
    with pytest.raises(UserError, match="has changed since"):
        check_bundle(bundle, keys, engines=True)


def test_what_is_not_covered_is_named(signed):
    (signed / "notes.txt").write_text("")
    (signed / "engines").mkdir()
    (signed / "engines" / "auto.json").write_text("{}")
    assert uncovered(signed, read_manifest(signed)) == ["engines/auto.json", "notes.txt"]


def test_without_trusted_keys_signatures_are_not_looked_at(signed):
    (signed / SIGNATURE).write_bytes(b"")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        deploy.load(signed, "onnxruntime", threads=1)
