"""ONNX files on ONNX Runtime. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import Message
from numpy.typing import NDArray

from saccade.core.card import Card
from saccade.core.errors import UserError
from saccade.core.files import read_all
from saccade.prediction.session import BATCH, INPUT, Session, cores

CARD = "saccade"  # the metadata key of the card, as in a model file
DOMAINS = {"", "ai.onnx", "com.microsoft", "pkg.onnxscript.torch_lib.common", "pkg.onnxscript.torch_lib"}
MOST_NODES = 200_000
NOT_OURS = "export it with `saccade export`: a card with its classes and preprocessing belongs in it"


class OnnxFile:
    """`model.onnx`, read whole and checked: whatever it holds besides, nothing outside of this one file is opened for it."""

    target = "onnx"
    runtime = f"onnxruntime {onnxruntime.__version__}"

    def __init__(self, path: Path, device: str = "auto") -> None:
        self.path = path
        self._providers = _providers(device)
        self._bytes = read_all(path)
        try:
            model = onnx.load_model_from_string(self._bytes)
        except Exception as error:  # protobuf's own DecodeError, which it does not export in one place
            raise UserError(f"is no ONNX file, or is damaged: {_line(error)}", where=str(path)) from None
        _check(model, str(path))
        cards = [entry.value for entry in model.metadata_props if entry.key == CARD]
        if len(cards) != 1:
            raise UserError("holds no card of saccade", where=str(path), fix=NOT_OURS)
        self.card = Card.from_json(cards[0], where=str(path))
        half = any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in model.graph.initializer)
        self.precision = "fp16" if half else "fp32"

    def session(self, streams: int = 1) -> Session:
        """A session whose `streams` calls share the cores; raises UserError where the runtime refuses the graph."""
        return OnnxSession(self._bytes, self.card, streams, self._providers, str(self.path))


class OnnxSession:
    """Runs the graph: uint8 `[B, C, H, W]` in, named arrays out. Any thread may call it."""

    batch = BATCH

    def __init__(self, data: bytes, card: Card, streams: int, providers: list[str], where: str) -> None:
        self.card, self.streams, self._where = card, streams, where
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = max(1, cores() // streams)
        options.add_session_config_entry("session.load_model_format", "ONNX")
        options.log_severity_level = 4  # what goes wrong reaches us as an exception
        try:
            self._session = onnxruntime.InferenceSession(data, options, providers=providers, enable_fallback=False)
            inputs = [(one.name, one.type) for one in self._session.get_inputs()]
            self._names = [one.name for one in self._session.get_outputs()]
        except Exception as error:  # its exceptions have no base of their own
            raise UserError(f"ONNX Runtime refuses it: {_line(error)}", where=where) from None
        if inputs != [(INPUT, "tensor(uint8)")]:
            got = ", ".join(f"{name} {kind}" for name, kind in inputs)
            raise UserError(f"its only input must be {INPUT!r}, uint8, it takes {got or 'none'}", where=where, fix=NOT_OURS)

    def run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Raises UserError where the graph does not take images of this size."""
        try:
            outputs = self._session.run(self._names, {INPUT: images})
        except Exception as error:
            shape = list(images.shape)
            raise UserError(f"ONNX Runtime fails on images of shape {shape}: {_line(error)}", where=self._where) from None
        return dict(zip(self._names, outputs, strict=True))


def _providers(device: str) -> list[str]:
    """ONNX Runtime's names for a device; raises UserError where the installed one has no such device."""
    has = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if device == "cpu" or (device == "auto" and not has):
        return ["CPUExecutionProvider"]
    if device.partition(":")[0] not in ("auto", "cuda") or not has:
        raise UserError(
            f"the installed ONNX Runtime cannot compute on {device!r}", where="--device", fix="use cpu, or install onnxruntime-gpu for cuda"
        )
    return ["CUDAExecutionProvider", "CPUExecutionProvider"]


def _check(model: onnx.ModelProto, where: str) -> None:
    """Refuse what could reach outside of the file or run somebody's code: external data, custom operators; and absurd sizes."""
    parts = list(_parts(model))
    nodes = [part for part in parts if isinstance(part, onnx.NodeProto)]
    tensors = [part for part in parts if isinstance(part, onnx.TensorProto)]
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data for tensor in tensors):
        raise UserError("keeps weights in other files, which are never opened", where=where, fix="save it as one file")
    if strange := sorted({node.domain for node in nodes} - DOMAINS - {function.domain for function in model.functions}):
        raise UserError(f"uses custom operators ({', '.join(strange)[:200]}), which are never loaded", where=where)
    if len(nodes) > MOST_NODES:
        raise UserError(f"must have at most {MOST_NODES:,} nodes, has {len(nodes):,}", where=where)


def _parts(message: Message) -> Iterator[Message]:
    """A message and all in it, wherever: graphs in attributes of nodes in functions, defaults of attributes, sparse tensors."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if isinstance(value, Message) else value:
                yield from _parts(part)


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text.rpartition("] : ")[2][:300] or type(error).__name__
