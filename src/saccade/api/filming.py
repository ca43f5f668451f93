"""Answers for the frames of videos, drawn over them: videos again."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from saccade.core import folders
from saccade.core.results import Result
from saccade.core.video import Recorder
from saccade.prediction.pipeline import Failed
from saccade.prediction.sources import Source
from saccade.task import Answering


def drawn(answers: Iterator[Result | Failed], kept: deque[Source], task: Answering, folder: Path) -> Iterator[Result | Failed]:
    """Passes the answers on, each for the next of the `kept` sources; those for frames are drawn into 000000-NAME.webm ..., numbered in the
    order of the inputs. Frames that failed are left out."""
    with _Films(task, folder) as films:
        for answer in answers:
            films.take(kept.popleft(), answer)
            yield answer


class _Films(ExitStack):
    """The video that is being written, and how many inputs have been come to."""

    def __init__(self, task: Answering, folder: Path) -> None:
        super().__init__()
        self._task, self._folder = task, folder
        self._recorder: Recorder | None = None
        self._number = -1

    def take(self, source: Source, answer: Result | Failed) -> None:
        """The next source's answer."""
        if source.moment is None or source.moment.frame == 0:
            self.close()  # the video before is whole
            self._recorder, self._number = None, self._number + 1
        if source.moment is None or isinstance(answer, Failed):
            return
        if self._recorder is None:
            name = f"{self._number:06d}-{folders.stem(source.name)}.webm"
            self._recorder = self.enter_context(Recorder(folders.make(self._folder) / name))
        self._recorder.add(np.asarray(self._task.draw(source.content, answer)), source.moment.time)
