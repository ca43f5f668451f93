"""ONNX, through torch's dynamo exporter."""

from __future__ import annotations

import contextlib
import io
import logging
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import numpy as np
import onnx
import onnxruntime
import torch

from saccade.core.errors import UserError
from saccade.core.finish import BY_RANK
from saccade.core.geometry import MULTIPLE
from saccade.exporting.graph import AXES, Graph
from saccade.prediction.onnx_file import CARD
from saccade.prediction.opening import STEM
from saccade.prediction.session import INPUT

_ALONE = threading.Lock()  # what is quiet or patched is so for the whole process
MOST_BYTES = 2**31 - 1  # protobuf's own limit
HALF_BLOCKED = ["Softmax", "ReduceMean", "GlobalAveragePool", "Resize"]  # sums over many values, and what ONNX Runtime has in float32 only


def write(graph: Graph, precision: str) -> tuple[dict[str, bytes], Sequence[str]]:
    """{"model.onnx": ...} and the dynamic axes; raises UserError where the network cannot be exported."""
    model, dynamic = build(graph)
    if precision == "fp16":
        model = _halved(model)
    return {f"{STEM}.onnx": _pack(model, graph)}, dynamic


def build(graph: Graph) -> tuple[onnx.ModelProto, Sequence[str]]:
    """The graph in ONNX, float32, with as many dynamic axes as the network allows."""
    failure: Exception | None = None
    for axes in [AXES, AXES[:1]] if graph.sizes else [AXES[:1]]:
        try:
            model = _export(graph, axes)
        except Exception as error:  # the exporter wraps anything from a constraint on a size to an operator that it does not know
            failure = error
            continue
        if _answers(model, graph, axes):
            return model, axes
        failure = failure or ValueError("the graph that it makes takes no other number of images than it was made with")
    reason = " ".join(str(failure.__cause__ or failure).split())[:300] if failure else ""
    raise UserError(f"torch cannot export this network to ONNX: {reason}", fix="try another model, or report it with the model's name")


def _export(graph: Graph, axes: Sequence[str]) -> onnx.ModelProto:
    places = {"batch": 0, "height": 2, "width": 3}
    step = 1 if graph.card.input.resize == "crop" else MULTIPLE
    shapes = ({places[axis]: torch.export.Dim(axis) * (1 if axis == "batch" else step) for axis in axes},)
    with _ALONE, _quiet(), _measured(graph.module):
        program: Any = torch.onnx.export(  # None only without dynamo
            graph.module,
            (graph.sample,),
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=[INPUT],
            output_names=list(graph.names),
            verbose=False,
            custom_translation_table={torch.ops.aten._is_all_true.default: _all_true},
        )
    model: onnx.ModelProto = program.model_proto
    return model


@contextlib.contextmanager
def _measured(module: torch.nn.Module) -> Iterator[None]:
    """Within, what networks of transformers learn of the number and the sides of images is as the exporter knows it: `len`, and their own
    `torch_int`, give plain numbers, which would stand in the graph in place of it, and so does the length of torch's `linspace`."""
    linspace = torch.linspace

    def length(values: Any) -> Any:
        return values.shape[0] if isinstance(values, torch.Tensor) else len(values)

    def as_it_is(value: Any) -> Any:
        return value if isinstance(value, torch.SymInt) else int(value)

    def spaced(start: Any, end: Any, steps: Any, **options: Any) -> torch.Tensor:
        if not isinstance(steps, torch.SymInt):
            return linspace(start, end, steps, **options)  # of other threads too
        each = (end - start) / torch.sym_max(steps - 1, 1)
        found: torch.Tensor = start + torch.arange(steps, **options) * each
        return found

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(torch, "linspace", spaced))
        for name in {type(part).__module__ for part in module.modules()}:
            if name.startswith("transformers."):
                stack.enter_context(mock.patch.multiple(name, create=True, len=length, torch_int=as_it_is))
        yield


def _all_true(values: Any) -> Any:
    """Whether all of a tensor of bool is true: what networks of transformers check about themselves, which the exporter does not know."""
    from onnxscript import opset18

    op: Any = opset18
    return op.Cast(op.ReduceMin(op.Cast(values, to=onnx.TensorProto.INT32), keepdims=0), to=onnx.TensorProto.BOOL)


@torch.inference_mode()
def _answers(model: onnx.ModelProto, graph: Graph, axes: Sequence[str]) -> bool:
    """Whether a graph that was exported as taking any number of images, of any size where it is dynamic, does: a branch on the size (VGG's
    pooling) stays as it was for the sample, and so does a number that Python has been told."""
    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), quiet, providers=["CPUExecutionProvider"])
    # Objects that are equally sure may stand in another order; their scores fall.
    names = [name for name in graph.names if name not in BY_RANK]
    three = graph.sample[[0, 1, 0]].float()
    for size in graph.sizes if axes == AXES else [graph.sample.shape[2:]]:
        images = torch.nn.functional.interpolate(three, size).to(torch.uint8)
        try:
            found = session.run(names, {INPUT: images.numpy()})
        except Exception:  # its exceptions have no base of their own
            return False
        if axes != AXES:
            return True  # what it answers is proved later; a graph of any size must do so here, or there is another
        expected = [output.numpy() for name, output in zip(graph.names, graph.module(images), strict=True) if name in names]
        if not all(np.allclose(one, other, rtol=1e-2, atol=1e-3) for one, other in zip(found, expected, strict=True)):
            return False
    return True


def _halved(model: onnx.ModelProto) -> onnx.ModelProto:
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    blocked = [*DEFAULT_OP_BLOCK_LIST, *HALF_BLOCKED]
    with _ALONE, _quiet():
        half: onnx.ModelProto = convert_float_to_float16(model, keep_io_types=True, op_block_list=blocked)
        OnnxModel(half).topological_sort(is_deterministic=True)  # the converter appends its casts at the end
    return half


def _pack(model: onnx.ModelProto, graph: Graph) -> bytes:
    """The file: the card as its one piece of metadata, no trace of the machine that made it."""
    channels, (height, width) = graph.card.input.channels, graph.card.input.size
    for part in _parts(model):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    kind = {1: "grey", 3: "RGB", 4: "RGB premultiplied by alpha, and alpha"}.get(channels, f"{channels} channels")
    model.graph.input[
        0
    ].doc_string = f"uint8 [batch, {channels}, height, width], {kind}, 0 to 255; prepared as the card says ({height}x{width})"
    model.producer_name, model.producer_version = "saccade", graph.card.version
    model.metadata_props.add(key=CARD, value=graph.card.to_ascii())
    if model.ByteSize() > MOST_BYTES:
        raise UserError("this network is larger than 2 GiB, which one ONNX graph cannot hold", fix="take a smaller --model")
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _parts(model: onnx.ModelProto) -> Iterator[Any]:
    yield model
    yield model.graph
    yield from (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer, *model.graph.value_info)
    for function in model.functions:
        yield function
        yield from (*function.node, *function.value_info)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's remarks are for developers of torch; its errors reach us as exceptions."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
