"""Ways to damage a bundle, by accident or on purpose; each takes the folder and a random generator."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx

from deploy.bundle.golden_file import read_golden
from deploy.bundle.manifest import GOLDEN, MANIFEST, MODEL
from tests.deploy.bundle.test_golden_file import DAMAGES as GOLDEN_DAMAGES
from tests.deploy.bundle.test_network_check import huge, loop
from tests.deploy.hostile import constant_network, put, seal

Damage = Callable[[Path, Random], object]

VALUES = (
    None, True, False, 0, -1, 1, 7, 97, 254, 256, 65536, 10**18, -(10**18), 2**63, 2**64, 10**30, 0.5, -0.5, 1e-300,
    1e39, -1e39, 1e308, "", "text", "nan", "x" * 5000, "a\nb", "\x1b[2J", "..", "../../etc/passwd", "\u202e", "\x00",
    [], [1] * 100, [[]], {}, {"a": 1}, [None],
)  # fmt: skip
"""What is put into a field of the manifest."""


def any_file(bundle: Path, random: Random) -> Path:
    return random.choice(sorted(path for path in bundle.iterdir() if path.is_file()))


def flip(bundle: Path, random: Random) -> None:
    path = any_file(bundle, random)
    data = bytearray(path.read_bytes())
    for _ in range(random.randint(1, 8)):
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    path.write_bytes(data)


def truncate(bundle: Path, random: Random) -> None:
    path = any_file(bundle, random)
    os.truncate(path, random.randrange(path.stat().st_size))


def append(bundle: Path, random: Random) -> None:
    with open(any_file(bundle, random), "ab") as file:
        file.write(random.randbytes(random.randint(1, 5000)))


def overwrite(bundle: Path, random: Random) -> None:
    path = any_file(bundle, random)
    data = bytearray(path.read_bytes())
    begin = random.randrange(len(data))
    end = min(len(data), begin + 4096)
    data[begin:end] = random.choice((bytes(end - begin), random.randbytes(end - begin)))
    path.write_bytes(data)


def remove(bundle: Path, random: Random) -> None:
    any_file(bundle, random).unlink()


def swap(bundle: Path, random: Random) -> None:
    first, second = random.sample(sorted(bundle.iterdir()), 2)
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def swap_and_mend(bundle: Path, random: Random) -> None:
    model, golden = (bundle / MODEL).read_bytes(), (bundle / GOLDEN).read_bytes()
    (bundle / GOLDEN).write_bytes(model)
    put(bundle, MODEL, golden)


def not_a_file(bundle: Path, random: Random) -> None:
    path = any_file(bundle, random)
    path.unlink()
    random.choice((path.mkdir, lambda: os.mkfifo(path)))()


def link(bundle: Path, random: Random) -> None:
    """To the same content elsewhere, to a file of the system, to a device that never ends, to itself, or to nothing."""
    path = any_file(bundle, random)
    elsewhere = bundle.with_name(f"{bundle.name}-elsewhere")
    elsewhere.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(random.choice((elsewhere, "/etc/passwd", "/dev/zero", path, "/nowhere")))


def field(bundle: Path, random: Random) -> None:
    """Any value in any field, with a mended digest."""
    raw = manifest(bundle)
    place, key = random.choice(fields(raw))
    place[key] = random.choice(VALUES)
    seal(bundle, raw)


def missing_field(bundle: Path, random: Random) -> None:
    raw = manifest(bundle)
    place, key = random.choice([(place, key) for place, key in fields(raw) if isinstance(place, dict)])
    del place[key]
    seal(bundle, raw)


def more_fields(bundle: Path, random: Random) -> None:
    raw = manifest(bundle)
    place, _ = random.choice([(place, key) for place, key in fields(raw) if isinstance(place, dict)])
    name = random.choice(("new", "x" * 3000, "a\nb", "../../x", "/etc/passwd", ".."))
    place[name] = random.choice(
        (1, "text", {"sha256": "0" * 64, "bytes": 1}, {"sha256": "0" * 64, "bytes": 10**18})
    )
    seal(bundle, raw)


def many_files(bundle: Path, random: Random) -> None:
    raw = manifest(bundle)
    raw["files"] |= {
        str(i): {"sha256": "0" * 64, "bytes": 1} for i in range(random.choice((1001, 20_000, 100_000)))
    }
    seal(bundle, raw)


def nesting(bundle: Path, random: Random) -> None:
    depth = random.choice((900, 2000, 100_000))
    opening, closing = random.choice((("[", "]"), ('{"a":', "}")))
    text = (bundle / MANIFEST).read_text(encoding="utf-8")
    deep = opening * depth + "1" + closing * random.choice((0, depth))
    (bundle / MANIFEST).write_text(text.replace("{", f'{{"deep":{deep},', 1), encoding="utf-8")


def huge_manifest(bundle: Path, random: Random) -> None:
    os.truncate(bundle / MANIFEST, random.choice((5 << 20, 1 << 30, 1 << 40)))


def golden(bundle: Path, random: Random) -> None:
    """What `test_golden_file` lists (bombs, pickles, NaN, …), with mended checksums."""
    kind = random.choice(sorted(GOLDEN_DAMAGES))
    put(bundle, GOLDEN, GOLDEN_DAMAGES[kind](read_golden(bundle)))


def flipped_golden(bundle: Path, random: Random) -> None:
    data = bytearray((bundle / GOLDEN).read_bytes())
    for _ in range(random.randint(1, 4)):
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    put(bundle, GOLDEN, bytes(data))


def network(bundle: Path, random: Random) -> None:
    """A network with loops, huge constants, or other inputs and outputs, with mended checksums."""
    sizes = [random.choice((1, 32, 48, 97, 1000)) for _ in range(2)]
    kind = random.choice((np.uint8, np.int64, np.float32, np.int32))
    label = random.choice((0, 3, 200, 255))
    put(
        bundle,
        MODEL,
        random.choice(
            (
                lambda: constant_network(nodes=loop(2**62)),
                lambda: constant_network(nodes=huge("ConstantOfShape", 1 << random.randint(29, 62))),
                lambda: constant_network(nodes=huge("Expand", 1 << random.randint(29, 62), 1, 1, 1)),
                lambda: constant_network(np.full((1, *sizes), label, kind)),
                lambda: constant_network(
                    logits=np.zeros((1, random.choice((1, 2, 4, 300)), 4, 6), np.float32)
                ),
                lambda: constant_network(
                    logits=np.full((1, 3, 4, 6), random.choice((np.nan, np.inf)), np.float32)
                ),
                lambda: constant_network(np.full((1, 32, 48), label, np.uint8)),
                lambda: b"",
                lambda: random.randbytes(random.randint(1, 5000)),
            )
        )(),
    )


def external(bundle: Path, random: Random) -> None:
    """Weights in a file that is not listed, inside or outside the bundle, with mended checksums."""
    model = onnx.load_from_string((bundle / MODEL).read_bytes())
    tensor = random.choice(model.graph.initializer)
    (bundle / "weights.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    location = random.choice(
        ("weights.bin", "../weights.bin", "/etc/passwd", "/dev/zero", "golden.npz/../weights.bin")
    )
    tensor.external_data.add(key="location", value=location)
    put(bundle, MODEL, model.SerializeToString())


def flipped_network(bundle: Path, random: Random) -> None:
    """Flipped bits in the network with mended checksums: it may be another network, which only a signature can tell."""
    data = bytearray((bundle / MODEL).read_bytes())
    for _ in range(random.randint(1, 4)):
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    put(bundle, MODEL, bytes(data))


def pickled(bundle: Path, random: Random) -> None:
    """A pickle that would leave a trace, in place of any file."""
    trace = str(bundle.with_name("executed")).encode()
    code = b"cposix\nsystem\n(S'touch " + trace + b"'\ntR."
    name = random.choice((MANIFEST, MODEL, GOLDEN))
    if name == MANIFEST:
        (bundle / name).write_bytes(code)
        return
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117) + b"\n"
    put(
        bundle,
        name,
        random.choice((code, b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + code)),
    )


def manifest(bundle: Path) -> dict[str, Any]:
    return json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))


def fields(value: Any) -> list[tuple[Any, Any]]:
    """Container and key of everything within a JSON value."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, inner in pairs for found in ((value, key), *fields(inner))]


DAMAGES: tuple[Damage, ...] = (
    flip, truncate, append, overwrite, remove, swap, swap_and_mend, not_a_file, link, field, field, field,
    missing_field, more_fields, many_files, nesting, huge_manifest, golden, golden, flipped_golden, network, network,
    external, flipped_network, pickled,
)  # fmt: skip
"""In turns; twice what has many forms."""
OTHER_NETWORK = (flipped_network, network)
"""Whose checksums vouch for another network: where it is one that can run, its answers are its own."""
