"""Single bits that turn over in what a run keeps: what tests/faults/test_damage.py and benchmarks/flips.py share."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

from saccade.core import modelfile
from saccade.core.errors import UserError
from saccade.core.files import MANIFEST
from saccade.core.rundir import RunDir


class Flips:
    """The newest checkpoint and both models of a finished run of two generations, whose bits turn over one at a time."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        older, newest = sorted(run.checkpoints.iterdir())
        self.folder = newest
        self.files = [*sorted(newest.iterdir()), run.best, run.last]
        self.contents = [path.read_bytes() for path in self.files]
        self._weights = list(map(len, self.contents))
        self._open = [os.open(path, os.O_RDWR) for path in self.files]
        self._whole = run.load_checkpoint()
        newest.rename(run.path / "aside")
        self._older = run.load_checkpoint()
        (run.path / "aside").rename(newest)
        assert self._whole[0] > self._older[0] and older.name.endswith(str(self._older[0]))

    def close(self) -> None:
        for fd in self._open:
            os.close(fd)

    def some(self, number: int, draws: random.Random) -> Counter[str]:
        """`file: what came of it` -> how often, over so many bits drawn evenly from all files."""
        found: Counter[str] = Counter()
        for _ in range(number):
            which = draws.choices(range(len(self.files)), self._weights)[0]
            bit = draws.randrange(len(self.contents[which]) * 8)
            found[f"{self.files[which].name}: {self.flip(which, bit)}"] += 1
        return found

    def flip(self, which: int, bit: int) -> str:
        """Turn one bit of a file over, read as a run that goes on would, and turn it back: found, harmless or MISSED."""
        path, byte = self.files[which], self.contents[which][bit // 8]
        os.pwrite(self._open[which], bytes([byte ^ 1 << bit % 8]), bit // 8)
        try:
            return self._model(path) if path in (self.run.best, self.run.last) else self._checkpoint(path, byte)
        finally:
            os.pwrite(self._open[which], bytes([byte]), bit // 8)

    def _checkpoint(self, path: Path, byte: int) -> str:
        step, contents, lines = self.run.load_checkpoint()
        if lines:
            told = len(lines) == 1 and lines[0].startswith(f"passed over checkpoint step-{self._whole[0]}: {self.folder}")
            return "found" if told and (step, contents) == self._older[:2] else "MISSED"
        same = (step, contents) == self._whole[:2] and path.name == MANIFEST and chr(byte).isspace()
        return "harmless" if same else "MISSED"

    def _model(self, path: Path) -> str:
        """Not a bit of these is harmless."""
        try:
            modelfile.load(path)
        except UserError as error:
            return "found" if str(path) in str(error) and "\n" not in str(error) else "MISSED"
        return "MISSED"
