"""Memory that a process keeps while the same arrays are made again and again."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys

import pytest

from saccade.core import memory

SCRIPT = """
import json, resource
from saccade.core import memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def held():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

def work():
    for _ in range(4):
        b"x" * (40 * 2**20), b"x" * (3 * 2**20)

work()
before = faults()
work()
usual = faults() - before
with memory.kept():
    work()
    before, small = faults(), held()
    work()
    kept, large = faults() - before, held()
print(json.dumps({"usual": usual, "kept": kept, "within": large, "after": held()}))
"""


@pytest.mark.processes
@pytest.mark.skipif(not sys.platform.startswith("linux") or memory._glibc() is None, reason="needs glibc")
def test_arrays_that_are_made_again_touch_no_new_page_and_all_is_given_back() -> None:
    found = json.loads(subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True).stdout)
    assert found["usual"] > 20_000  # 160 MiB of pages of 4 KiB
    assert found["kept"] < 200
    assert found["after"] < found["within"] - 30 * 2**20


def test_without_glibc_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        def __getattr__(self, name: str) -> None:
            raise AttributeError(name)

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Other())
    with memory.kept():
        assert memory._glibc() is None
