"""Randomly damaged and hostile bundles: each is refused in one line or harmless, in bounded time and memory.

`EDGEDISTILL_CHAOS=1000 pytest tests/chaos/test_damaged_bundles.py -s` tries a thousand and prints what came of them.
"""

import json
import os
import queue
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random
from threading import Thread

import pytest

from tests.chaos.damages import DAMAGES, OTHER_NETWORK
from tests.conftest import ROOT
from tests.deploy.tiny import make_bundle

COUNT = int(os.environ.get("EDGEDISTILL_CHAOS", "60"))
SECONDS = 60
"""Longest time of a bundle, two opens and a measurement of `auto`; a machine under load is slow."""
MEGABYTES = 400
"""Memory of the process above what it had with good bundles; OpenVINO is loaded later, and keeps what it compiled."""
BACKENDS = ("onnxruntime", "onnxruntime", "onnxruntime", "openvino", "auto")
KINDS = ("rgb", "sar")


class Worker:
    """`bundle_worker`, started again when a bundle has ended it."""

    def __init__(self, good: list[Path]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.bundle_worker", *map(str, good)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.lines: queue.Queue[str] = queue.Queue()
        self.thread = Thread(target=self._read, daemon=True)
        self.thread.start()
        self.base = self.peak = json.loads(self.lines.get(timeout=SECONDS))["peak"]

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put("")

    def ask(self, **question: str) -> dict[str, str]:
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        try:
            line = self.lines.get(timeout=SECONDS)
        except queue.Empty:
            return {"load": f"HANG: more than {SECONDS} s", "verify": ""}
        if not line:
            return {"load": f"CRASH: ended with {self.process.wait()}", "verify": ""}
        reply = json.loads(line)
        self.peak = max(self.peak, reply["peak"])
        return reply

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.thread.join()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("good")
    for kind in KINDS:
        make_bundle(folder / kind, kind)
    return [folder / kind for kind in KINDS]


def judge(reply: dict[str, str], may_be_another: bool) -> str:
    """Where a bundle was stopped; in capitals what must not happen."""
    load, verify = reply["load"], reply["verify"]
    for text in (load, verify):
        if text.startswith(("CRASH", "HANG")):
            return text
        if text.startswith("refused") and not (text.isprintable() and len(text) < 1500):
            return f"NOT ONE LINE: {text!r}"
    if load.startswith("refused"):
        return "refused when loaded"
    if load == "equal":
        return "harmless" if verify == "passed" else "equal answers, refused by verify"
    if verify != "passed":
        return "other answers, refused by verify"
    return (
        "another network with its own checksums"
        if may_be_another
        else "SILENT: other answers, and verify passes"
    )


def test_damaged_bundles_are_refused_or_harmless(good, tmp_path, capsys):
    counts: Counter[str] = Counter()
    slowest, worst, faults = 0.0, 0, []
    worker = Worker(good)
    for seed in range(COUNT):
        random, damage = Random(seed), DAMAGES[seed % len(DAMAGES)]
        number = random.randrange(len(KINDS))
        bundle = tmp_path / f"{seed}"
        shutil.copytree(good[number], bundle)
        damage(bundle, random)
        start = time.monotonic()
        reply = worker.ask(bundle=str(bundle), kind=KINDS[number], backend=random.choice(BACKENDS))
        slowest = max(slowest, time.monotonic() - start)
        verdict = judge(reply, damage in OTHER_NETWORK)
        worst = max(worst, worker.peak - worker.base)
        if verdict.split(":")[0].isupper():
            faults.append(f"seed {seed}, {damage.__name__}: {verdict}")
            worker.close()
            worker = Worker(good)
        counts[verdict.split(":")[0]] += 1
        shutil.rmtree(bundle, ignore_errors=True)
    worker.close()
    with capsys.disabled():
        if "EDGEDISTILL_CHAOS" in os.environ:
            print(
                f"\n{COUNT} bundles: {dict(counts.most_common())}, slowest {slowest:.1f} s, {worst} MB more at most"
            )
    assert faults == []
    assert worst < MEGABYTES
    assert not (tmp_path / "executed").exists()
    assert counts["refused when loaded"] > COUNT / 2  # the damages do damage
