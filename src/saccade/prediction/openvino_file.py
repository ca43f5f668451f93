"""OpenVINO files (model.xml and its model.bin). No torch."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.core.card import Card
from saccade.core.errors import UserError
from saccade.prediction.opening import require
from saccade.prediction.session import BATCH, INPUT, Session, cores

require("openvino")  # which silences its telemetry: before the import, and for whoever takes OpenVINO from here

import openvino  # noqa: E402
from openvino.frontend import FrontEndManager  # noqa: E402

# OpenVINO fills its table of element types at first use, in a C++ static that lets go of Python's lock while it is being made: two threads
# whose first calls meet there wait for each other for ever. Made here, under the import's lock, before there are any.
openvino.Type.u8.to_dtype()

CARD = "saccade"
NOT_OURS = "export it with `saccade export`: a card with its classes and preprocessing belongs in it"


class OpenVinoFile:
    """`model.xml`, read with the weights beside it."""

    target = "openvino"
    runtime = f"openvino {openvino.__version__.partition('-')[0]}"

    def __init__(self, path: Path, device: str = "auto") -> None:
        if device not in ("auto", "cpu"):
            raise UserError(f"OpenVINO exports compute on cpu here, not on {device!r}", where="--device")
        self.path = path
        if not path.with_suffix(".bin").is_file():
            raise UserError(f"its weights, {path.with_suffix('.bin').name}, are missing beside it", where=str(path))
        try:
            reader = FrontEndManager().load_by_framework("ir")  # read_model would try every format that it knows
            self._model = openvino.Model(reader.convert(reader.load(str(path))))
            text = self._model.get_rt_info([CARD]).astype(str) if self._model.has_rt_info([CARD]) else None
        except Exception as error:
            raise UserError(f"is no OpenVINO file, or is damaged: {_line(error)}", where=str(path)) from None
        if text is None:
            raise UserError("holds no card of saccade", where=str(path), fix=NOT_OURS)
        self.card = Card.from_json(text, where=str(path))
        kinds = [node.get_element_type() for node in self._model.get_ops() if node.get_type_name() == "Constant"]
        self.precision = "fp16" if openvino.Type.f16 in kinds else "fp32"

    def session(self, streams: int = 1) -> Session:
        """A session whose `streams` calls share the cores; raises UserError where the runtime refuses the graph."""
        return OpenVinoSession(self._model, self.card, streams, str(self.path))


class OpenVinoSession:
    """Runs the graph in float32: uint8 `[B, C, H, W]` in, named arrays out. Any thread may call it.

    Asked for float32: by itself OpenVINO takes bfloat16 where the processor knows the words, at half the speed where it has no unit for it.
    """

    batch = BATCH

    def __init__(self, model: openvino.Model, card: Card, streams: int, where: str) -> None:
        self.card, self.streams, self._where = card, streams, where
        inputs = [(_name(one), one.get_element_type()) for one in model.inputs]
        if inputs != [(INPUT, openvino.Type.u8)]:
            got = ", ".join(f"{name} {kind}" for name, kind in inputs)
            raise UserError(f"its only input must be {INPUT!r}, uint8, it takes {got or 'none'}", where=where, fix=NOT_OURS)
        if not all(one.get_names() for one in model.outputs):
            raise UserError("has an output without a name", where=where, fix=NOT_OURS)
        settings = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": max(cores(), streams)}
        try:
            # In a thread that ends: OpenVINO gives the thread that compiles a signal stack, and when models are dropped in another order
            # than they were made, takes it away under the thread that has it: the next signal (SIGTERM) is then a crash.
            with ThreadPoolExecutor(1) as thread:
                self._compiled = thread.submit(openvino.Core().compile_model, model, "CPU", settings).result()
        except RuntimeError as error:
            raise UserError(f"OpenVINO refuses it: {_line(error)}", where=where) from None
        self._names = [_name(one) for one in model.outputs]
        self._threads = threading.local()  # a request belongs to one call at a time

    def run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Raises UserError where the graph does not take images of this size."""
        if not hasattr(self._threads, "request"):
            self._threads.request = self._compiled.create_infer_request()
        try:
            outputs = self._threads.request.infer({INPUT: images}, share_inputs=True)
        except RuntimeError as error:
            shape = list(images.shape)
            raise UserError(f"OpenVINO fails on images of shape {shape}: {_line(error)}", where=self._where) from None
        return {name: np.asarray(outputs[name]) for name in self._names}


def _name(port: Any) -> str:
    return port.get_any_name() if port.get_names() else ""


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]
