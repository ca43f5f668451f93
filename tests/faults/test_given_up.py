"""A run that goes back to an older checkpoint gives up the newer ones, for good: never by chance, and never by halves."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from faults import saver
from saccade.core import files
from saccade.core.errors import UserError
from saccade.core.files import DamagedError
from saccade.core.rundir import RunDir

SIZE = 4000


def test_no_save_is_acknowledged_beside_a_later_one_that_cannot_be_removed(tmp_path: Path) -> None:
    """Or the next start would take the later one, and what was acknowledged would be lost."""

    class Stuck(files.Disk):
        def rename(self, source: Path, target: Path) -> None:
            if source.name == "step-000000005":
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            super().rename(source, target)

        def remove(self, path: Path) -> None:
            if path.name == "step-000000005":
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            super().remove(path)

    RunDir(tmp_path).save_checkpoint(5, {"a": b"5"})
    with pytest.raises(UserError, match="step-000000005: a later checkpoint"):
        RunDir(tmp_path, disk=Stuck()).save_checkpoint(4, {"a": b"4"})
    RunDir(tmp_path).save_checkpoint(4, {"a": b"4"})
    assert RunDir(tmp_path).load_checkpoint() == (4, {"a": b"4"}, [])


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES])
def test_an_error_that_passes_is_no_reason_to_go_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """A run that went back for it cut its metrics; killed then, it met the newer checkpoint again, whose lines were gone, and was stuck."""
    for step in (1, 2):
        saver.save(tmp_path / "run", step, SIZE)
    read = Path.read_bytes

    def fails(path: Path) -> bytes:
        if path.parent.name == "step-000000002":
            raise OSError(code, os.strerror(code), str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", fails)
    with pytest.raises(UserError, match=r"step-000000002/MANIFEST\.json: cannot read") as caught:
        saver.save(tmp_path / "run", 3, SIZE)
    assert not isinstance(caught.value, DamagedError)
    monkeypatch.undo()
    saver.save(tmp_path / "run", 3, SIZE)
    assert RunDir(tmp_path / "run").load_checkpoint()[0] == 3
    assert RunDir(tmp_path / "run").metrics_file.read_bytes() == saver.lines(3)


def test_a_checkpoint_on_a_bad_sector_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 2):
        saver.save(tmp_path / "run", step, SIZE)
    read = Path.read_bytes

    def fails(path: Path) -> bytes:
        if path.parent.name == "step-000000002":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", fails)
    step, contents, passed_over = RunDir(tmp_path / "run").load_checkpoint()
    assert (step, contents) == (1, saver.contents(1, SIZE))
    assert len(passed_over) == 1 and "step-2" in passed_over[0] and "input/output error" in passed_over[0]
