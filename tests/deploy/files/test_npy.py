"""`.npy`: our own arrays keep their axes, and odd files are one line that names them, without allocating anything."""

import io
import subprocess
import sys

import numpy as np
import pytest

from deploy.errors import UserError
from deploy.files.images import read_image
from deploy.files.npy import channels_last, load_array, save_image
from tests.conftest import ROOT
from tests.deploy.files.pictures import refusal


@pytest.mark.parametrize(
    "shape", [(24, 24, 30), (1, 1, 30), (1, 50, 4), (50, 1, 4), (8, 9, 2), (1, 1, 1), (4, 4, 4)]
)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_what_we_write_is_what_we_read(tmp_path, shape, dtype):
    image = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    save_image(tmp_path / "a.npy", image)
    again = read_image(tmp_path / "a.npy")
    assert again.dtype == image.dtype
    np.testing.assert_array_equal(again, image)


def test_either_byte_order(tmp_path):
    for dtype in (">u2", ">f4", ">f8"):
        np.save(tmp_path / "a.npy", np.arange(6, dtype=dtype).reshape(2, 3))
        again = read_image(tmp_path / "a.npy")
        assert again.dtype.isnative
        np.testing.assert_array_equal(again[..., 0], [[0, 1, 2], [3, 4, 5]])


def test_what_is_known_decides_the_axes(tmp_path):
    image = np.zeros((24, 26, 30))
    name = tmp_path / "a.npy"
    assert channels_last(image, name).shape == (26, 30, 24), "the shorter of first and last"
    assert channels_last(image, name, channels=30).shape == (24, 26, 30)
    assert channels_last(image, name, size=(24, 26)).shape == (24, 26, 30)
    assert channels_last(image, name, channels=24).shape == (26, 30, 24)
    assert channels_last(image, name, size=(26, 30)).shape == (26, 30, 24)
    assert channels_last(image, name, channels=3).shape == (26, 30, 24), "neither fits: the caller refuses it"


def header(text: str, data: bytes = b"") -> bytes:
    text = text.ljust(117) + "\n"
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text.encode("latin1") + data


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def pickled() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Evil()], object), allow_pickle=True)
    return buffer.getvalue()


def zipped() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros((3, 3)))
    return buffer.getvalue()


GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"
ODD = {
    "a .npz": (zipped(), "is a .npz archive"),
    "7 TiB": (header(GOOD.replace("(2, 3)", "(1000000, 1000000, 2)"), bytes(24)), "24 bytes of data where"),
    "beyond 64 bits": (header(GOOD.replace("(2, 3)", f"({10**30}, 3)"), bytes(24)), "24 bytes of data where"),
    "negative": (header(GOOD.replace("(2, 3)", "(-2, -3)"), bytes(24)), "corrupt, or not an array"),
    "true": (header(GOOD.replace("(2, 3)", "(True, 3)"), bytes(24)), "corrupt, or not an array"),
    "no numbers": (header(GOOD.replace("(2, 3)", "('2', 3)"), bytes(24)), "corrupt, or not an array"),
    "cut": (header(GOOD, bytes(23)), "23 bytes of data where"),
    "open bracket": (header(GOOD.replace("(2, 3)", "(2, 3")), "corrupt, or not an array"),
    "open text": (header(GOOD.replace("'<f4'", "'<f4")), "corrupt, or not an array"),
    "nested": (header("(" * 110), "corrupt, or not an array"),
    "a call": (header("__import__('os').abort()"), "corrupt, or not an array"),
    "null": (header(GOOD.replace("<", "\0")), "corrupt, or not an array"),
    "objects": (pickled(), "not numbers"),
    "texts": (header(GOOD.replace("<f4", "<U4"), bytes(96)), "not numbers"),
    "fields": (header(GOOD.replace("'<f4'", "[('a', '<f4'), ('b', '<f4')]"), bytes(48)), "not numbers"),
    "subarrays": (header(GOOD.replace("'<f4'", "('<f4', (2,))"), bytes(48)), ""),
    "empty": (header(GOOD.replace("(2, 3)", "(0, 3)")), "is empty"),
    "no axes": (header(GOOD.replace("(2, 3)", "()"), bytes(4)), r"shape \(\)"),
    "four axes": (header(GOOD.replace("(2, 3)", "(2, 1, 3, 1)"), bytes(24)), r"shape \(2, 1, 3, 1\)"),
    "version 9": (b"\x93NUMPY\x09\0" + header(GOOD, bytes(24))[8:], "corrupt, or not an array"),
    "nothing": (b"", "corrupt, or not an array"),
    "magic alone": (b"\x93NUMPY", "corrupt, or not an array"),
    "complex": (header(GOOD.replace("<f4", "<c8"), bytes(48)), "complex64"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_files_are_one_line(tmp_path, capsys, name):
    data, message = ODD[name]
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(UserError, match=rf"a\.npy: .*{message}") as caught:
        read_image(tmp_path / "a.npy")
    assert "\n" not in str(caught.value)
    assert "executed" not in capsys.readouterr().out


def test_any_flipped_bit_is_one_line_or_passes(tmp_path):
    good = header(GOOD, np.arange(6, dtype=np.float32).tobytes())
    for place in range(len(good) - 24):
        for bit in range(8):
            data = bytearray(good)
            data[place] ^= 1 << bit
            (tmp_path / "a.npy").write_bytes(data)
            message = refusal(load_array, tmp_path / "a.npy")
            assert message.startswith(f"{tmp_path / 'a.npy'}: ") or not message
            assert "\n" not in message


def test_a_shape_is_checked_before_memory_is_taken(tmp_path):
    (tmp_path / "a.npy").write_bytes(header(GOOD.replace("(2, 3)", "(40000, 40000)"), bytes(1000)))
    code = (
        "import resource, sys\nfrom deploy.files.images import read_image\nfrom deploy.errors import UserError\n"
        "resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30,) * 2)\n"
        "try: read_image(sys.argv[1])\nexcept UserError as error: print(error)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.npy")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "a.npy: corrupt, or not an array (1,000 bytes of data where" in run.stdout, run.stderr
