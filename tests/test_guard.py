"""The guard catches what it says, and lets pass what libraries do by themselves."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import guard

TESTS = Path(__file__).parent

# Each really does it, in a test session of its own; none sends anything to another machine (a UDP connect sends no packet).
CAUGHT = {
    "connect": "sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); sock.connect(('192.0.2.1', 9)); sock.close()",
    "connect_v6": "sys.audit('socket.connect', socket.socket(socket.AF_INET6), ('2001:db8::1', 80, 0, 0))",
    "lookup": "quiet(socket.getaddrinfo, 'example.invalid', 80, flags=socket.AI_NUMERICHOST)",
    "bind_all": "sock = socket.socket(); sock.bind(('', 0)); sock.close()",
    "find_class": "pickle.Unpickler(io.BytesIO(pickle.dumps(collections.OrderedDict))).load()",
    "loads_plain": "pickle.loads(pickle.dumps([1]))",
    "load_plain": "pickle.load(io.BytesIO(pickle.dumps([1])))",
    "numpy_pickle": "import numpy; quiet(numpy.load, io.BytesIO(pickle.dumps([1])), allow_pickle=True)",
    "torch_load": "import torch; f = io.BytesIO(); torch.save({'a': 1}, f); f.seek(0); torch.load(f, weights_only=True)",
    "popen": "subprocess.run(['true'], check=True)",
    "system": "os.system('true')",
    "posix_spawn": "os.waitpid(os.posix_spawn('/bin/sh', ['sh', '-c', ':'], os.environ), 0)",
    "fork": "pid = os.fork(); os._exit(0) if pid == 0 else os.waitpid(pid, 0)",
    "spawn": "p = multiprocessing.get_context('spawn').Process(target=print); p.start(); p.join()",
    "in_thread": "t = threading.Thread(target=os.system, args=('true',)); t.start(); t.join()",
    "swallowed": "quiet(subprocess.run, ['no-such-program'])",
    "in_fixture": "fixture",
}
PASSES = {
    "loopback": "s = socket.create_server(('127.0.0.1', 0)); c = socket.create_connection(s.getsockname()); c.close(); s.close()",
    "localhost": "socket.getaddrinfo('localhost', 80)",
    "unix": "s = socket.socket(socket.AF_UNIX); s.bind(str(tmp_path / 's')); s.close()",
    "shared_memory": "m = shared_memory.SharedMemory(create=True, size=9); m.close(); m.unlink()",
    "queue": "q = multiprocessing.get_context('fork').SimpleQueue(); q.put([1, 'a']); assert q.get() == [1, 'a']",
    "platform": "platform.uname().processor",
    "allowed": "with guard.GUARD.allow('processes'): os.system('true')",
}
MARKED = {
    "marked_popen": "subprocess.run(['true'], check=True)",
    "marked_fork": "p = multiprocessing.get_context('fork').Process(target=print); p.start(); p.join()",
    "marked_spawn": "p = multiprocessing.get_context('spawn').Process(target=print); p.start(); p.join()",
}
CHILD = "p = multiprocessing.get_context('fork').Process(target=pickle.loads, args=(pickle.dumps([1]),)); p.start(); p.join()"

HEAD = """
import collections, io, multiprocessing, os, pickle, platform, socket, subprocess, sys, threading
from multiprocessing import shared_memory
import guard, pytest

subprocess.run(["true"], check=True)  # collection is not armed

def quiet(function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except Exception:
        pass

@pytest.fixture
def starts_a_process():
    yield
    os.system("true")

def test_in_fixture(starts_a_process):
    pass
"""


def _suite() -> str:
    lines = [HEAD]
    for name, body in (CAUGHT | PASSES).items():
        if name != "in_fixture":
            lines.append(f"def test_{name}(tmp_path):\n    {body}\n")
    for name, body in (MARKED | {"child": CHILD}).items():
        lines.append(f"@pytest.mark.processes\ndef test_{name}():\n    {body}\n")
    return "\n".join(lines)


def _pytest(folder: Path, text: str, hooks: str = "") -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text((TESTS / "conftest.py").read_text() + hooks)
    (folder / "test_inner.py").write_text(text)
    (folder / "pytest.ini").write_text(f"[pytest]\npythonpath = {TESTS}\nmarkers =\n    processes\n    slow\n    gpu\n    browser\n")
    command = [sys.executable, "-m", "pytest", "-rA", "-q", "-p", "no:cacheprovider", "--color=no", "test_inner.py"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """One real session of pytest over all the cases."""
    with guard.GUARD.allow("processes"):
        return _pytest(tmp_path_factory.mktemp("guarded"), _suite())


@pytest.mark.parametrize("name", CAUGHT)
def test_violation_fails_the_test(outcome: subprocess.CompletedProcess[str], name: str) -> None:
    assert re.search(rf"^ERROR test_inner.py::test_{name} - Failed: the guard", outcome.stdout, re.M), outcome.stdout
    assert re.search(rf"^PASSED test_inner.py::test_{name}$", outcome.stdout, re.M), "the library itself must not see an exception"
    assert outcome.returncode == 1


@pytest.mark.parametrize("name", [*PASSES, *MARKED])
def test_harmless_or_declared_passes(outcome: subprocess.CompletedProcess[str], name: str) -> None:
    assert re.search(rf"^PASSED test_inner.py::test_{name}$", outcome.stdout, re.M), outcome.stdout
    assert not re.search(rf"^ERROR test_inner.py::test_{name}\b", outcome.stdout, re.M), outcome.stdout


def test_forked_child_is_guarded_too(outcome: subprocess.CompletedProcess[str]) -> None:
    assert "ERROR test_inner.py::test_child - " in outcome.stdout
    assert re.search(r"unpickling: pickle.loads in child process \d+", outcome.stdout)


def test_report_names_policy_and_place(outcome: subprocess.CompletedProcess[str]) -> None:
    assert "network: socket.connect ('192.0.2.1', 9)" in outcome.stdout
    assert "unpickling: pickle.find_class collections.OrderedDict" in outcome.stdout
    assert re.search(r"processes: subprocess.Popen true\n( .*\n)*? +\S*test_inner.py:\d+", outcome.stdout)


@pytest.mark.processes
def test_clean_session_succeeds(tmp_path: Path) -> None:
    result = _pytest(tmp_path, "def test_ok():\n    assert True\n")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.processes
def test_violation_after_the_last_test_fails_the_session(tmp_path: Path) -> None:
    text = "def test_ok():\n    pass\n"
    late = """
def pytest_runtest_logfinish():
    guard.GUARD.armed = True
    guard.GUARD.report("network", "late")
    guard.GUARD.armed = False
"""
    result = _pytest(tmp_path, text, late)
    assert result.returncode == 1
    assert "caught after the last test" in result.stdout
    assert "network: late" in result.stdout


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost", b"localhost", None])
def test_local_hosts(host: object) -> None:
    assert guard.is_local(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "example.com", "::", "fe80::1%eth0", b"example.com"])
def test_foreign_hosts(host: object) -> None:
    assert not guard.is_local(host)


def test_allow_knows_its_policies() -> None:
    with pytest.raises(ValueError, match="netwrok"), guard.GUARD.allow("netwrok"):
        pass


@pytest.mark.long
def test_what_libraries_do_by_themselves_passes(tmp_path: Path) -> None:
    """Importing them and their first steps, here under the armed guard: nothing may be caught at this test's teardown."""
    import copy

    import captum.attr
    import filelock
    import matplotlib.pyplot as plt
    import timm
    import torch
    from torch.utils.tensorboard import SummaryWriter

    model = timm.create_model("resnet10t", num_classes=2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.zeros(2, 3, 33, 17)).sum().backward()
    optimizer.step()
    copy.deepcopy(model), copy.deepcopy(optimizer)
    captum.attr.LayerGradCam(model, model.layer4).attribute(torch.zeros(1, 3, 33, 17), target=0)
    with SummaryWriter(str(tmp_path / "tb")) as writer:
        writer.add_scalar("loss", 1.0, 1)
    figure = plt.figure()
    figure.savefig(tmp_path / "figure.png")
    plt.close(figure)
    with filelock.FileLock(tmp_path / "lock"):
        assert torch.get_num_threads() <= 2
