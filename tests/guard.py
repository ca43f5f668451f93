"""No surprises in tests: an audit hook that fails a test which reaches the network, unpickles, or starts a process unasked.

Policies: "network" (sockets beyond loopback and AF_UNIX, look-ups of names that are not local), "unpickling", "processes" (child
processes; `@pytest.mark.processes` declares them). The hook never raises inside a library: it appends a line to a log, which forked
children share, and the test that ran meanwhile fails at its teardown. Events are looked at only while a test runs, so imports at
collection are free. `torch.load`, `pickle.load(s)` and multiprocessing's "spawn" fire no event; they are wrapped when imported.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.abc
import importlib.machinery
import ipaddress
import json
import multiprocessing.reduction  # noqa: F401  before pickle is wrapped: queues of plain values keep the original
import os
import pickle  # noqa: F401  so that it is there to be wrapped
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from types import FrameType, ModuleType
from typing import Any

import pytest

POLICIES = ("network", "unpickling", "processes")
LOCAL_FAMILIES = {getattr(socket, name) for name in ("AF_UNIX", "AF_NETLINK") if hasattr(socket, name)}
LOCAL_NAMES = {None, "", "localhost", "localhost.localdomain", "ip6-localhost"}
QUICK_TEST_SECONDS = 5.0

# Libraries that ask the system something through a child process by themselves: file of the caller -> what it asks.
HARMLESS_CALLERS = {
    "ctypes/util.py": "where a shared library lies (torch, at import)",
    "matplotlib/font_manager.py": "which fonts there are, when its cache is new",
    "loky/backend/context.py": "how many cores there are (scikit-learn)",
    "platform.py": "the processor's name",
}


class Guard:
    """The state of the guard: whether it is armed, what is allowed now, and the log of what was caught."""

    def __init__(self) -> None:
        descriptor, path = tempfile.mkstemp(prefix="saccade-guard-")
        os.close(descriptor)
        self.log = os.open(path, os.O_RDWR | os.O_APPEND)
        os.unlink(path)
        self.read = 0
        self.armed = False
        self.allowed: frozenset[str] = frozenset()

    @contextlib.contextmanager
    def allow(self, *policies: str) -> Iterator[None]:
        """Lift `policies` meanwhile: for fixtures that serve many tests. A test itself says it by a marker."""
        if unknown := set(policies) - set(POLICIES):
            raise ValueError(f"a policy must be one of {POLICIES}, got {sorted(unknown)}")
        before, self.allowed = self.allowed, self.allowed | set(policies)
        try:
            yield
        finally:
            self.allowed = before

    def report(self, policy: str, what: str) -> None:
        """Note a violation of `policy`, unless it is allowed now; called from any thread or forked child."""
        if not self.armed or policy in self.allowed:
            return
        frames = list(_frames(sys._getframe(2)))
        if policy == "processes" and any(name.endswith(caller) for name, _ in frames for caller in HARMLESS_CALLERS):
            return
        line = json.dumps({"policy": policy, "what": what, "pid": os.getpid(), "stack": [f"{name}:{row}" for name, row in frames[:6]]})
        os.write(self.log, line.encode() + b"\n")

    def new_violations(self) -> list[str]:
        """What was caught since the last call, a readable text each."""
        data = os.pread(self.log, 1 << 24, self.read)
        self.read += len(data)
        return [_readable(json.loads(line)) for line in data.splitlines()]


GUARD = Guard()


def _frames(frame: FrameType | None) -> Iterator[tuple[str, int]]:
    while frame is not None:
        name = frame.f_code.co_filename
        if name != __file__ and not name.startswith("<frozen"):
            yield name, frame.f_lineno
        frame = frame.f_back


def _readable(row: dict[str, Any]) -> str:
    child = f" in child process {row['pid']}" if row["pid"] != os.getpid() else ""
    return "\n    ".join([f"{row['policy']}: {row['what']}{child}", *row["stack"]])


def is_local(host: object) -> bool:
    """Whether `host` (a name or an address) is this machine by loopback; "" and None are for a look-up of one's own."""
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    if name in LOCAL_NAMES:
        return True
    try:
        return ipaddress.ip_address(str(name).partition("%")[0]).is_loopback
    except ValueError:
        return False


def _check_socket(event: str, args: tuple[Any, ...]) -> None:
    connection, address = args[0], args[1]
    if connection.family in LOCAL_FAMILIES or address is None:  # sendmsg on a connected socket has no address
        return
    host = address[0] if isinstance(address, tuple) and address else address
    # An empty host is every interface of this machine, which other machines reach.
    if host in ("", b"") or not is_local(host):
        GUARD.report("network", f"{event} {address!r}")


def _check_lookup(event: str, args: tuple[Any, ...]) -> None:
    host = args[0][0] if isinstance(args[0], tuple) else args[0]
    if not is_local(host):
        GUARD.report("network", f"{event} {host!r}")


def _check_pickle(event: str, args: tuple[Any, ...]) -> None:
    GUARD.report("unpickling", f"{event} {args[0]}.{args[1]}")


def _check_process(event: str, args: tuple[Any, ...]) -> None:
    GUARD.report("processes", f"{event} {args[0] if args else ''}".strip())


CHECKS: dict[str, Callable[[str, tuple[Any, ...]], None]] = {
    **dict.fromkeys(["socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg"], _check_socket),
    **dict.fromkeys(["socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"], _check_lookup),
    "pickle.find_class": _check_pickle,
    **dict.fromkeys(
        ["subprocess.Popen", "os.fork", "os.forkpty", "os.system", "os.posix_spawn", "os.exec", "os.spawn", "pty.spawn"], _check_process
    ),
}


def _hook(event: str, args: tuple[Any, ...]) -> None:
    check = CHECKS.get(event)
    if check is not None and GUARD.armed:
        check(event, args)


def _wrapped(function: Callable[..., Any], policy: str, what: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        # Shared memory keeps a small process that cleans up; multiprocessing starts it by itself.
        if not (what == "multiprocessing spawn" and any("resource_tracker" in str(part) for part in args[1])):
            GUARD.report(policy, what)
        return function(*args, **kwargs)

    return call


# module -> attribute -> (policy, what it is called in a report)
SILENT = {
    "pickle": {"load": ("unpickling", "pickle.load"), "loads": ("unpickling", "pickle.loads")},
    "torch.serialization": {"load": ("unpickling", "torch.load")},
    "multiprocessing.util": {"spawnv_passfds": ("processes", "multiprocessing spawn")},
}


def wrap_silent(module: ModuleType) -> None:
    """Make the functions of `module` that fire no audit event report themselves."""
    for name, (policy, what) in SILENT[module.__name__].items():
        setattr(module, name, _wrapped(getattr(module, name), policy, what))


class _WrapWhenImported(importlib.abc.MetaPathFinder):
    """Wraps what fires no event as soon as its module is loaded, before anybody can take the original out of it."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        if fullname not in SILENT:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                run(module)
                wrap_silent(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def install() -> None:
    """Add the hook and the wrappers, once for this process: an audit hook cannot be taken away again."""
    for name in SILENT:
        if name in sys.modules:
            wrap_silent(sys.modules[name])
    sys.meta_path.insert(0, _WrapWhenImported())
    sys.addaudithook(_hook)


class GuardPlugin:
    """Arms the guard around each test and fails the test at its teardown."""

    def __init__(self) -> None:
        self.late: list[str] = []
        self.unmarked: list[tuple[float, str]] = []

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        declared = any(item.get_closest_marker(name) for name in ("processes", "browser"))
        GUARD.allowed = frozenset({"processes"} if declared else ())
        GUARD.armed = True
        try:
            return (yield)
        finally:
            GUARD.armed = False

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Iterator[None]:
        result = yield
        if violations := GUARD.new_violations():
            pytest.fail("the guard of the test suite caught:\n  " + "\n  ".join(violations), pytrace=False)
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        marks = {"slow", "long", "browser", "gpu"}
        if report.when == "call" and report.duration > QUICK_TEST_SECONDS and not marks & set(report.keywords):
            self.unmarked.append((report.duration, report.nodeid))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self.late = GUARD.new_violations()
        if self.late:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.late:
            terminalreporter.section("guard: caught after the last test", red=True)
            terminalreporter.line("\n".join(self.late))
        if self.unmarked:
            terminalreporter.section(f"over {QUICK_TEST_SECONDS:.0f} s without the marker long or slow (`make check` runs them)")
            for seconds, name in sorted(self.unmarked, reverse=True):
                terminalreporter.line(f"{seconds:6.1f} s  {name}")
