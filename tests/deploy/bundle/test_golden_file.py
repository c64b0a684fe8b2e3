"""golden_file.py: damaged and hostile examples are one line each, and sizes are checked before anything is unpacked."""

import io
import resource
import struct
import zipfile
import zlib

import numpy as np
import pytest

import deploy
from deploy.bundle.golden_file import read_golden
from deploy.bundle.manifest import GOLDEN
from deploy.cli import main
from deploy.errors import UserError
from tests.deploy.hostile import put
from tests.deploy.tiny import make_bundle, make_image


@pytest.fixture
def bundle(tmp_path):
    make_bundle(tmp_path / "bundle")
    return tmp_path / "bundle"


def archive(golden: dict[str, np.ndarray], **changes: np.ndarray | bytes) -> bytes:
    """The file with some arrays, or the bytes of their members, replaced."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in {**golden, **changes}.items():
            if isinstance(content, bytes):
                file.writestr(f"{name}.npy", content)
            else:
                with file.open(f"{name}.npy", "w") as member:
                    np.save(member, content)
    return buffer.getvalue()


def header(text: bytes) -> bytes:
    text += b" " * (64 - (10 + len(text) + 1) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


OBJECTS = header(b"{'descr': '|O', 'fortran_order': False, 'shape': (2,), }")


def bomb(size: int) -> bytes:
    """An archive whose member tells that it has `size` bytes, and is a thousand times smaller."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file, file.open("inputs.npy", "w") as member:
        member.write(header(b"{'descr': '|u1', 'fortran_order': False, 'shape': (%d,), }" % size))
        for _ in range(size >> 20):
            member.write(bytes(1 << 20))
    return buffer.getvalue()


NAN = np.full((2, 3, 4, 6), np.nan, np.float32)
DAMAGES = {
    "text": lambda golden: b"no archive",
    "empty": lambda golden: b"",
    "cut off": lambda golden: archive(golden)[:-30],
    "cut off early": lambda golden: archive(golden)[:100],
    "flipped": lambda golden: archive(golden)[:200] + b"\xff" * 50 + archive(golden)[250:],
    "no zlib": lambda golden: archive(golden, inputs=b"x").replace(zlib.compress(b"x")[2:-4], b"\xff\xff\xff"),
    "no array": lambda golden: archive(golden, inputs=b"hello"),
    "unclosed header": lambda golden: archive(golden, inputs=header(b"{'descr': '<f4', 'shape': (((((")),
    "odd header": lambda golden: archive(golden, inputs=header(b"\x00\xff'")),
    "nested header": lambda golden: archive(golden, inputs=header(b"(" * 900)),
    "long header": lambda golden: archive(golden, inputs=header(b"{'descr': '<f4'," + b" " * 30_000)),
    "7 TiB": lambda golden: archive(
        golden, inputs=header(b"{'descr': '|u1', 'fortran_order': False, 'shape': (2, 32, 48, 999999999999), }")
    ),
    "negative": lambda golden: archive(
        golden, inputs=header(b"{'descr': '|u1', 'fortran_order': False, 'shape': (-2, 32, 48, 3), }")
    ),
    "overflow": lambda golden: archive(
        golden, inputs=header(b"{'descr': '|u1', 'fortran_order': False, 'shape': (%d,), }" % 10**30)
    ),
    "pickle": lambda golden: archive(golden, labels=np.array([print], object)),
    "pickled": lambda golden: archive(golden, inputs=OBJECTS),
    "without logits": lambda golden: archive({k: v for k, v in golden.items() if k != "logits"}),
    "no images": lambda golden: archive({name: array[:0] for name, array in golden.items()}),
    "a scalar": lambda golden: archive(golden, logits=np.float32(1)),
    "other size": lambda golden: archive(golden, inputs=golden["inputs"][:, 1:]),
    "other type": lambda golden: archive(golden, inputs=golden["inputs"].astype(np.float64)),
    "other number": lambda golden: archive(golden, logits=golden["logits"][:1]),
    "labels outside the classes": lambda golden: archive(golden, labels=golden["labels"] + np.uint8(3)),
    "NaN": lambda golden: archive(golden, logits=NAN),
    "infinite": lambda golden: archive(golden, logits=NAN * 0 + np.inf),
    "logits larger than the labels": lambda golden: archive(golden, logits=np.zeros((2, 3, 64, 64), np.float32)),
    "bomb": lambda golden: bomb(512 << 20),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_golden_files_are_one_line(bundle, damage):
    put(bundle, GOLDEN, DAMAGES[damage](read_golden(bundle)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"golden\.npz: ") as caught:
        read_golden(bundle)
    assert str(caught.value).isprintable()
    with pytest.raises(UserError, match=r"golden\.npz: "):
        main(["verify", str(bundle), "--backend", "onnxruntime"])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # kB


@pytest.mark.parametrize("damage", ["text", "pickle", "7 TiB", "unclosed header", "NaN"])
def test_auto_ignores_damaged_golden_files(bundle, damage):
    (bundle / GOLDEN).write_bytes(DAMAGES[damage](read_golden(bundle)))
    image = make_image()
    expected = deploy.load(bundle, "onnxruntime", threads=1)(image).labels
    assert np.array_equal(deploy.load(bundle, threads=1, verify=False)(image).labels, expected)
