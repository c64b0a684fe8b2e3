"""Signatures over bytes as DSSE 1.0 (https://github.com/secure-systems-lab/dsse), which other tools check, too.

What is signed is the type of the content together with the content (`pre_authentication`), so that no signature made
for something else counts here.
"""

import base64
import binascii
from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from deploy.errors import UserError
from deploy.signing.keys import PrivateKey, PublicKey

Base64 = Annotated[str, Meta(max_length=1 << 20)]


class Signature(msgspec.Struct, frozen=True):
    """One signature."""

    keyid: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    """Which key to check it with (`PublicKey.id`); a hint, nothing more."""
    sig: Base64


class Envelope(msgspec.Struct, frozen=True, rename={"payload_type": "payloadType"}):
    """Content with its signatures, as JSON."""

    payload: Base64
    payload_type: Annotated[str, Meta(max_length=200)]
    signatures: Annotated[tuple[Signature, ...], Meta(max_length=64)]

    def content(self) -> bytes:
        """What is signed."""
        return _decoded(self.payload)


def seal(content: bytes, kind: str, key: PrivateKey, others: Sequence[Signature] = ()) -> Envelope:
    """Sign content.

    Args:
        content: what is signed.
        kind: its media type.
        key: signs.
        others: signatures of the same content by other keys, which are kept.
    """
    mine = Signature(key.public.id, _encoded(key.sign(pre_authentication(kind, content))))
    kept = [one for one in others if one.keyid != mine.keyid]
    return Envelope(_encoded(content), kind, (*kept, mine))


def signer(envelope: Envelope, kind: str, trusted: Sequence[PublicKey]) -> PublicKey:
    """The first trusted key that has signed the content.

    Raises:
        UserError: none has; the message says why, without the name of a file.
    """
    if envelope.payload_type != kind:
        raise UserError("signs something other than a bundle; sign it with edgedistill sign")
    message = pre_authentication(kind, envelope.content())
    known = {key.id: key for key in trusted}
    named = [one for one in envelope.signatures if one.keyid in known]
    for one in named:
        if known[one.keyid].verifies(_decoded(one.sig), message):
            return known[one.keyid]
    if named:
        raise UserError(f"the signature of key {short(named[0].keyid)} is wrong; do not use this bundle")
    found = ", ".join(short(one.keyid) for one in envelope.signatures) or "nobody"
    wanted = ", ".join(map(short, known))
    raise UserError(
        f"is signed by {found}, which is none of the trusted keys ({wanted}); do not use this bundle"
    )


def pre_authentication(kind: str, content: bytes) -> bytes:
    """The bytes that are signed: type and content with their lengths ("PAE" of DSSE)."""
    name = kind.encode()
    return b"DSSEv1 %d %b %d %b" % (len(name), name, len(content), content)


def short(key_id: str) -> str:
    """The beginning of a key's id, for messages."""
    return key_id[:16]


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UserError(f"is damaged ({error}); copy the whole folder again") from error
