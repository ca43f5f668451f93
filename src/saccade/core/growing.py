"""A file that grows while it is read: under another name until it is whole."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from saccade.core import files

PARTIAL = ".partial"


class Growing:
    """`<path>.partial` while what belongs in it comes, then `path`. Whatever ends it before, the partial file keeps what is in it, and
    goes where that is nothing. Raises UserError where the disk refuses."""

    def __init__(self, path: Path) -> None:
        self.path, self.partial = path, path.with_name(path.name + PARTIAL)
        self.written = 0  # pieces

    def __enter__(self) -> Self:
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            self.file: IO[bytes] = os.fdopen(os.open(self.partial, flags, 0o666), "wb")
        except OSError as error:
            raise files.os_error(error, self.partial) from None
        return self

    def append(self, data: bytes) -> None:
        """One piece more; it is in the file when this returns."""
        try:
            self.file.write(data)
            self.file.flush()
        except OSError as error:
            raise files.os_error(error, self.partial) from None
        self.written += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            with self.file:
                if error is None:
                    self.file.flush()
                    os.fsync(self.file.fileno())
            if error is None:
                os.replace(self.partial, self.path)
            elif not self.written:
                files.discard(self.partial)
        except OSError as failure:
            raise files.os_error(failure, self.partial) from None
