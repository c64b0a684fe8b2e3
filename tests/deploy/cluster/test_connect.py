"""Clusters: of this machine, of a file, without workers; and who can talk to them."""

import json
import subprocess
import sys
from threading import Timer

import psutil
import pytest

from deploy.cluster.connect import connected
from deploy.errors import UserError
from tests.conftest import ROOT
from tests.deploy.cluster.conftest import NO_DASHBOARD

LOCAL = """
import sys
from urllib.error import HTTPError
from urllib.request import urlopen

import distributed

from deploy.cluster.connect import connected

if __name__ == "__main__":
    with connected(None, 1) as client:
        address = client.scheduler.address
        print(address.split(":")[0], len(client.nthreads()), client.submit(pow, 2, 3).result())
        try:
            distributed.Client(address.replace("tls", "tcp"), timeout=2)
        except OSError:
            print("refused")
        try:
            urlopen(f"http://127.0.0.1:{client.scheduler_info()['services']['dashboard']}/info/main/workers.html")
        except HTTPError as error:
            print(error.code)
        print(sys.argv[0])
        input()
"""


def addresses(pids: set[int]) -> set[str]:
    """The addresses that processes listen on."""
    found = [one for pid in pids for one in psutil.Process(pid).net_connections()]
    return {one.laddr.ip for one in found if one.status == psutil.CONN_LISTEN}


def test_processes_of_this_machine_are_for_this_program_only(tmp_path):
    """Their connections are encrypted with a key that only they know, and none listens to the network."""
    (tmp_path / "local.py").write_text(LOCAL)
    (tmp_path / "deploy.py").write_text("raise RuntimeError('shadowed')")
    code = f"import runpy, sys; sys.path.insert(0, {str(ROOT)!r}); runpy.run_path('local.py', run_name='__main__')"
    pipe, command = subprocess.PIPE, [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=tmp_path, text=True, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(4)]
        assert lines[:3] == ["tls 1 8", "refused", "404"], process.communicate("")[1]
        children = psutil.Process(process.pid).children(recursive=True)
        assert addresses({process.pid, *(one.pid for one in children)}) == {"127.0.0.1"}
        process.communicate("\n", timeout=60)
    assert process.returncode == 0


def test_the_file_of_a_scheduler(scheduler, tmp_path):
    (tmp_path / "scheduler.json").write_text(json.dumps({"address": scheduler}))
    with connected(str(tmp_path / "scheduler.json"), None) as client:
        assert len(client.nthreads()) == 2
    (tmp_path / "scheduler.json").write_text("{}")
    with (
        pytest.raises(UserError, match=r"scheduler\.json: is not the file of a scheduler"),
        connected(str(tmp_path / "scheduler.json"), None),
    ):
        pass
    for name, words in (
        ("none.json", r"none\.json: no scheduler wrote it within 0\.5 s"),
        ("no/folder.json", r"folder\.json: cannot be read \(No such file"),
    ):
        with pytest.raises(UserError, match=words), connected(str(tmp_path / name), None, 0.5):
            pass


def test_the_file_of_a_scheduler_that_was_just_started(scheduler, tmp_path):
    file, content = tmp_path / "scheduler.json", json.dumps({"address": scheduler})
    writes = [Timer(0.5, file.write_text, [content[:9]]), Timer(1.0, file.write_text, [content])]
    for write in writes:
        write.start()
    with connected(str(file), None, 30) as client:
        assert len(client.nthreads()) == 2


@pytest.mark.parametrize("address", ["nonsense", "tcp://no-such-host.invalid:8786", "xyz://127.0.0.1:1"])
def test_addresses_that_are_none(address):
    with (
        pytest.raises(UserError, match=f"--scheduler {address}: cannot be reached within 2 s") as caught,
        connected(address, None, 2),
    ):
        pass
    assert "\n" not in str(caught.value)


def test_a_scheduler_without_workers():
    import distributed

    with (
        distributed.LocalCluster(n_workers=0, **NO_DASHBOARD) as cluster,
        pytest.raises(UserError, match=r"has no worker after 1 s; start some \(dask worker tcp://"),
        connected(cluster.scheduler_address, None, 1),
    ):
        pass
