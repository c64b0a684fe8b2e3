"""lock.py: programs that change one bundle at once do so one after the other, and no addition is lost."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from deploy.bundle.bundle_files import extend_bundle, read_manifest, set_decision, verify_files, write_bundle
from deploy.bundle.lock import locked
from deploy.bundle.manifest import MODEL
from deploy.errors import UserError
from deploy.files import lock
from deploy.files.staging import exchange
from tests.conftest import ROOT
from tests.deploy.tiny import make_bundle, make_manifest

ADD = """
import sys
from deploy.bundle.bundle_files import extend_bundle
for number in range(6):
    extend_bundle(sys.argv[1], {f"{sys.argv[2]}-{number}.txt": b"x"}, metrics={f"{sys.argv[2]}-{number}": 1.0})
"""


@pytest.fixture
def bundle(tmp_path):
    make_bundle(tmp_path / "bundle", "sar")
    return tmp_path / "bundle"


def test_no_addition_of_several_processes_is_lost(bundle):
    names = ["a", "b", "c"]
    processes = [subprocess.Popen([sys.executable, "-c", ADD, str(bundle), name], cwd=ROOT) for name in names]
    for number in range(6):  # and a thread of this process
        set_decision(bundle, 0.1 * number, None, {f"d-{number}": 1.0})
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    manifest = read_manifest(bundle)
    verify_files(bundle, manifest)
    added = {f"{name}-{number}" for name in names for number in range(6)}
    assert added | {f"d-{number}" for number in range(6)} <= manifest.metrics.keys()
    assert {f"{name}.txt" for name in added} <= manifest.files.keys()
    assert sorted(path.name for path in bundle.parent.iterdir()) == ["bundle"]


def test_no_addition_of_several_threads_is_lost(bundle):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: extend_bundle(bundle, {f"{number}.txt": b"x"}), range(12)))
    assert {f"{number}.txt" for number in range(12)} <= read_manifest(bundle).files.keys()


def test_what_was_made_from_another_network_is_not_added(bundle):
    made_from = {MODEL: read_manifest(bundle).files[MODEL]}
    write_bundle(bundle, make_manifest("sar"), {MODEL: b"a new export"})
    with pytest.raises(UserError, match=r"model\.onnx: was replaced by another program meanwhile"):
        extend_bundle(bundle, {"model.int8.onnx": b"of the old one"}, made_from=made_from)
    assert set(read_manifest(bundle).files) == {MODEL}


def test_the_lock_excludes_others_and_ends_with_its_block(bundle):
    refused = pytest.raises(UserError, match="another program is changing this bundle")
    with locked(bundle), refused, locked(bundle, seconds=0.1):
        pass
    with locked(bundle, seconds=0):
        pass


def test_who_waited_gets_the_lock_of_the_folder_that_replaced_the_other(bundle):
    order = []

    def wait():
        with locked(bundle):
            order.append((bundle / "new").exists())

    thread = threading.Thread(target=wait)
    with locked(bundle):
        thread.start()
        time.sleep(0.2)
        new = bundle.with_name("next")
        new.mkdir()
        (new / "new").touch()
        assert order == []
        assert exchange(new, bundle)
    thread.join(10)
    assert order == [True]


def test_where_nothing_can_be_locked_nothing_is(tmp_path, bundle, monkeypatch):
    with locked(tmp_path / "none yet"):
        pass

    def refuse(*_):
        raise OSError(9, "as on some network file systems")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    with locked(bundle), locked(bundle):
        pass
