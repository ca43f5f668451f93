"""What `embed` returns: a vector for each image, as a NumPy array that knows where its rows came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from saccade.core import encoding, files
from saccade.core.errors import UserError
from saccade.core.pixel_classes import numbers
from saccade.prediction.session import Session

FEATURES = "features"  # the name of an embedding session's only output, float32 [B, D]
SUFFIX = ".npz"


@dataclass(frozen=True, slots=True)
class Embedded:
    """One image's vector, float32 `[D]`."""

    source: str
    vector: NDArray[np.float32]


class Embeddings(np.ndarray[Any, np.dtype[np.float32]]):
    """float32 `[N, D]`: a row for each image that could be read, in the order of the inputs; an array like any other.

    sources: what the image of each row is called; failed: those that could not be read, [{"source", "reason"}]; file: where they were
    written. What is computed or cut from it is a plain array.
    """

    sources: tuple[str, ...]
    failed: tuple[Mapping[str, str], ...]
    seconds: float
    file: Path | None

    @classmethod
    def of(cls, rows: Sequence[Embedded], failed: Sequence[Mapping[str, str]], seconds: float) -> Self:
        """At least one row."""
        made = np.stack([row.vector for row in rows]).view(cls)
        made.sources, made.failed = tuple(row.source for row in rows), tuple(failed)
        made.seconds, made.file = seconds, None
        return made

    def __array_finalize__(self, parent: Any) -> None:
        self.sources, self.failed, self.seconds, self.file = (), (), 0.0, None

    def __array_wrap__(self, array: NDArray[Any], context: Any = None, return_scalar: bool = False) -> Any:
        return array[()] if return_scalar else np.asarray(array)

    def __getitem__(self, key: Any) -> Any:
        return np.asarray(self)[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(np.asarray(self))

    @property
    def images_per_second(self) -> float:
        """From the first byte read to the last vector."""
        return len(self) / max(self.seconds, 1e-9)

    def to_dict(self) -> dict[str, Any]:
        """The object of `embed --json`; the vectors stand in it where no file was written."""
        vectors = [None] * len(self) if self.file else np.asarray(self).tolist()
        return {
            "file": str(self.file) if self.file else None,
            "dimensions": self.shape[1],
            "results": [{"source": name, "embedding": vector} for name, vector in zip(self.sources, vectors, strict=True)],
            "failed": [dict(row) for row in self.failed],
            "images_per_second": self.images_per_second,
        }

    def save(self, path: str | Path) -> Path:
        """Write "embeddings", float32 `[N, D]`, and "sources", `[N]` names, as a .npz file, which `numpy.load` opens."""
        check_file(path)
        names = np.array(self.sources, np.str_)
        self.file = files.write_bytes(Path(path), encoding.npz({"embeddings": np.asarray(self), "sources": names}))
        return self.file


def check_file(path: str | Path) -> None:
    """Raise UserError where embeddings cannot be written under this name."""
    if Path(path).suffix != SUFFIX:
        raise UserError(
            f"embeddings are written as {SUFFIX}, not as {Path(path).suffix or 'a folder'}", where=str(path), fix="--out FILE.npz"
        )


def rows(
    session: Session,
    images: NDArray[np.uint8],
    sizes: Sequence[tuple[int, int]],
    sources: Sequence[str],
    notes: Sequence[tuple[str, ...]],
) -> list[Embedded]:
    """A vector for each of a batch of prepared images uint8 `[B, C, H, W]`; raises UserError where the model gives others."""
    vectors = numbers(session.run(images).get(FEATURES), FEATURES)
    if vectors.ndim != 2 or len(vectors) != len(images):
        raise UserError(f"the model must give {FEATURES} [{len(images)}, D], gives {list(vectors.shape)}")
    good = np.isfinite(vectors).all(1)
    if not good.all():
        fix = "try --precision fp32; if that gives the same, the weights are broken"
        raise UserError("features must be finite", where=sources[int(np.flatnonzero(~good)[0])], fix=fix)
    return [Embedded(*row) for row in zip(sources, vectors, strict=True)]
