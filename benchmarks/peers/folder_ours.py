"""saccade's side of `predict_folder.py`, through torch and through ONNX Runtime, and the two ceilings that bound it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from folder_worker import Answer, Contender, Setting, serve
from numpy.typing import NDArray


class Saccade(Contender):
    """`saccade.load(FILE).predict_each(FOLDER)`, with nothing set."""

    file = "model.safetensors"

    def __init__(self, material: Path, arch: str, cores: int) -> None:
        import saccade

        super().__init__(material, arch, cores)
        self.model = saccade.load(material / self.file)

    def run(self, folder: Path, setting: Setting) -> Sequence[Answer]:
        return [Answer(Path(result.source).name, result.label, result.probabilities) for result in self.model.predict_each(folder)]


class SaccadeOnnx(Saccade):
    """The same with the file that `saccade.export` made."""

    file = "model.onnx"


class Decoding(Contender):
    """Nothing but our own reading and preparing, in a thread a core. Its answers are empty: there is no model."""

    def __init__(self, material: Path, arch: str, cores: int) -> None:
        super().__init__(material, arch, cores)
        self.spec = input_spec(material)

    def run(self, folder: Path, setting: Setting) -> Sequence[Answer]:
        empty = np.empty(0, np.float32)
        with ThreadPoolExecutor(self.cores) as pool:
            return [Answer(path.name, "", empty) for path, _ in zip(images(folder), self.pixels(pool, folder), strict=True)]

    def pixels(self, pool: ThreadPoolExecutor, folder: Path) -> Iterator[NDArray[np.uint8]]:
        """uint8 [3, SIZE, SIZE] of each image, in order."""
        from saccade.core.images import read
        from saccade.core.prepare import prepare

        return pool.map(lambda path: prepare(read(path).pixels, self.spec), images(folder))


class Runtime(Decoding):
    """Nothing but ONNX Runtime, on batches that lie prepared in memory, with the file that we export.

    streams: threads that call the session at once, each call on its share of the cores; 1 is one call on all cores.
    """

    options: ClassVar[dict[str, list[Any]]] = {"streams": ["cores", 1], "batch": [8, 4, 16]}

    def __init__(self, material: Path, arch: str, cores: int) -> None:
        super().__init__(material, arch, cores)
        self.file = material / "model.onnx"
        self.held: dict[Path, NDArray[np.uint8]] = {}
        self.sessions: dict[int, Any] = {}

    def ready(self, folder: Path, setting: Setting) -> None:
        import onnxruntime

        if folder not in self.held:
            with ThreadPoolExecutor(self.cores) as pool:
                self.held[folder] = np.stack(list(self.pixels(pool, folder)))
        streams = self._streams(setting)
        if streams not in self.sessions:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = max(1, self.cores // streams)
            self.sessions[streams] = onnxruntime.InferenceSession(str(self.file), options, providers=["CPUExecutionProvider"])

    def run(self, folder: Path, setting: Setting) -> Sequence[Answer]:
        session, pixels, size = self.sessions[self._streams(setting)], self.held[folder], setting["batch"]
        name = session.get_inputs()[0].name
        batches = [pixels[start : start + size] for start in range(0, len(pixels), size)]
        with ThreadPoolExecutor(self._streams(setting)) as pool:
            outputs = list(pool.map(lambda batch: session.run(None, {name: batch})[0], batches))
        return [Answer("", "", row) for output in outputs for row in output]

    def _streams(self, setting: Setting) -> int:
        return self.cores if setting["streams"] == "cores" else 1


def images(folder: Path) -> list[Path]:
    """The images of a folder by name."""
    return sorted(folder.glob("*.jpg"))


def input_spec(material: Path) -> Any:
    """What the model file says of its input."""
    from saccade.core.modelfile import read_card

    return read_card(material / "model.safetensors").input


if __name__ == "__main__":
    serve({"saccade torch": Saccade, "saccade onnx": SaccadeOnnx, "decoding alone": Decoding, "runtime alone": Runtime})
