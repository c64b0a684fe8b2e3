"""Key files: what OpenSSL makes and checks, and what is refused."""

import shutil
import stat
import subprocess

import pytest

from deploy.errors import UserError
from deploy.signing.envelope import pre_authentication, seal
from deploy.signing.keys import PASSWORD, read_private, read_public, write_keys
from tests.deploy.signing.signed import make_key

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl here")


def openssl(*arguments) -> bytes:
    return subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True).stdout


def test_the_private_key_is_for_its_owner(key):
    assert stat.S_IMODE(key.private.stat().st_mode) == 0o600
    assert read_private(key.private).public.id == read_public(key.public).id == key.id


def test_keys_are_never_overwritten(tmp_path, key):
    with pytest.raises(UserError, match="exists"):
        make_key(tmp_path, "maker")
    key.private.unlink()
    with pytest.raises(UserError, match=r"pub\.pem: exists"):
        make_key(tmp_path, "maker")
    assert not key.private.exists()


@needs_openssl
def test_openssl_checks_our_signature(tmp_path, key):
    """An independent implementation, as docs/signing.md shows it."""
    envelope = seal(b"content", "text/plain", read_private(key.private))
    (tmp_path / "message").write_bytes(b"DSSEv1 10 text/plain 7 content")
    private = read_private(key.private)
    (tmp_path / "signature").write_bytes(private.sign(pre_authentication("text/plain", b"content")))
    text = openssl(
        *("pkeyutl", "-verify", "-pubin", "-inkey", key.public, "-rawin"),
        *("-in", tmp_path / "message", "-sigfile", tmp_path / "signature"),
    )
    assert b"Successfully" in text
    assert envelope.content() == b"content"


@needs_openssl
def test_keys_of_openssl_and_their_ids(tmp_path):
    private, public = tmp_path / "o.pem", tmp_path / "o.pub.pem"
    openssl("genpkey", "-algorithm", "ed25519", "-out", private)
    openssl("pkey", "-in", private, "-pubout", "-out", public)
    openssl("pkey", "-pubin", "-in", public, "-outform", "DER", "-out", tmp_path / "der")
    digest = openssl("dgst", "-sha256", "-r", tmp_path / "der").split()[0].decode()
    private.chmod(0o600)
    assert read_private(private).public.id == read_public(public).id == digest


def test_a_private_key_that_others_may_read_is_told(key):
    key.private.chmod(0o644)
    with pytest.warns(RuntimeWarning, match="chmod 600"):
        read_private(key.private)


def test_an_encrypted_key_needs_its_password(tmp_path, monkeypatch):
    monkeypatch.setenv(PASSWORD, "secret")
    made = write_keys(tmp_path / "k.pem")
    assert b"ENCRYPTED" in (tmp_path / "k.pem").read_bytes()
    assert read_private(tmp_path / "k.pem").public.id == made.id
    monkeypatch.setenv(PASSWORD, "wrong")
    with pytest.raises(UserError, match="password is wrong"):
        read_private(tmp_path / "k.pem")
    monkeypatch.delenv(PASSWORD)
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(UserError, match=PASSWORD):
        read_private(tmp_path / "k.pem")


@needs_openssl
def test_other_kinds_of_keys_are_refused(tmp_path):
    openssl("genpkey", "-algorithm", "X25519", "-out", tmp_path / "x.pem")
    openssl("pkey", "-in", tmp_path / "x.pem", "-pubout", "-out", tmp_path / "x.pub.pem")
    for read in (read_private, read_public):
        with pytest.raises(UserError, match="is not an Ed25519 key"):
            read(tmp_path / ("x.pem" if read is read_private else "x.pub.pem"))


def test_mixed_up_or_damaged_keys_are_refused(tmp_path, key):
    with pytest.raises(UserError, match="keep this one to yourself"):
        read_public(key.private)
    with pytest.raises(UserError, match="sign with the private one"):
        read_private(key.public)
    with pytest.raises(UserError, match="is not a public key in PEM"):
        read_public(b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    with pytest.raises(UserError, match="cannot be read"):
        read_public(tmp_path / "none.pem")
