"""Ways in which an export goes wrong: in the graph (an ONNX model changed in place), and in the card beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import onnx
from onnx import helper, numpy_helper

from saccade.core.card import Card


def constant(model: onnx.ModelProto, name: str, values: object, kind: type = np.float32) -> str:
    """Add a named constant to the graph; returns its name."""
    model.graph.initializer.append(numpy_helper.from_array(np.array(values, kind), name))
    return name


def scaled(model: onnx.ModelProto, part: str, factor: float) -> None:
    """Multiply the only initializer whose name ends in `part`."""
    (found,) = [tensor for tensor in model.graph.initializer if tensor.name.endswith(part)]
    found.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(found) * np.float32(factor), found.name))


def on_input(model: onnx.ModelProto, *nodes: onnx.NodeProto) -> None:
    """Put nodes between the pixels as floats and all that reads them; the first reads "pixels", the last writes "changed"."""
    (cast,) = [node for node in model.graph.node if node.op_type == "Cast" and list(node.input) == ["images"]]
    old = cast.output[0]
    for node in model.graph.node:
        node.input[:] = ["changed" if name == old else name for name in node.input]
    cast.output[0] = "pixels"
    place = list(model.graph.node).index(cast) + 1
    for number, node in enumerate(nodes):
        model.graph.node.insert(place + number, node)


def on_output(model: onnx.ModelProto, *nodes: onnx.NodeProto) -> None:
    """Put nodes behind the probabilities; the first reads "before", the last writes "probabilities"."""
    (softmax,) = [node for node in model.graph.node if "probabilities" in node.output]
    softmax.output[0] = "before"
    model.graph.node.extend(nodes)


def free_output(model: onnx.ModelProto, first: str, second: str) -> None:
    """Let the output's two axes be what they are."""
    model.graph.output[0].type.CopyFrom(helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, [first, second]))


def no_normalisation(model: onnx.ModelProto) -> None:
    scaled(model, "normalize.shift", 0)


def other_normalisation(model: onnx.ModelProto) -> None:
    scaled(model, "normalize.scale", 1.1)


def twice_normalised(model: onnx.ModelProto) -> None:
    """Somebody divides by 255 before us."""
    on_input(model, helper.make_node("Div", ["pixels", constant(model, "full", 255)], ["changed"]))


def swapped_channels(model: onnx.ModelProto) -> None:
    on_input(model, helper.make_node("Gather", ["pixels", constant(model, "bgr", [2, 1, 0], np.int64)], ["changed"], axis=1))


def transposed_image(model: onnx.ModelProto) -> None:
    on_input(model, helper.make_node("Transpose", ["pixels"], ["changed"], perm=[0, 1, 3, 2]))


def shrunk_inside(model: onnx.ModelProto) -> None:
    """A resize in the graph that the original does not have."""
    scales = constant(model, "scales", [1, 1, 0.5, 0.5])
    on_input(model, helper.make_node("Resize", ["pixels", "", scales], ["changed"], mode="linear"))


def only_right_at_its_size(model: onnx.ModelProto) -> None:
    """Exact where the width is the card's, darker elsewhere: what a size baked into the graph does."""
    on_input(
        model,
        helper.make_node("Shape", ["pixels"], ["width"], start=3, end=4),
        helper.make_node("Equal", ["width", constant(model, "own", [11], np.int64)], ["same"]),
        helper.make_node("Where", ["same", constant(model, "one", [1.0]), constant(model, "less", [0.5])], ["factor"]),
        helper.make_node("Mul", ["pixels", "factor"], ["changed"]),
    )


def depends_on_neighbours(model: onnx.ModelProto) -> None:
    """Statistics of the batch, as of a network left in training mode; exact at batch 1 where they vanish."""
    axes = constant(model, "axes", [0], np.int64)
    on_output(
        model,
        helper.make_node("ReduceMean", ["before", axes], ["broken_mean"], keepdims=1),
        helper.make_node("Sub", ["before", "broken_mean"], ["apart"]),
        helper.make_node("Mul", ["apart", constant(model, "half", 0.5)], ["some"]),
        helper.make_node("Sub", ["before", "some"], ["probabilities"]),
    )


def fixed_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 8


def transposed_output(model: onnx.ModelProto) -> None:
    on_output(model, helper.make_node("Transpose", ["before"], ["probabilities"], perm=[1, 0]))
    free_output(model, "classes", "batch")


def permuted_output(model: onnx.ModelProto) -> None:
    on_output(model, helper.make_node("Gather", ["before", constant(model, "turn", [1, 2, 0], np.int64)], ["probabilities"], axis=1))


def one_class_missing(model: onnx.ModelProto) -> None:
    on_output(model, helper.make_node("Gather", ["before", constant(model, "two", [0, 1], np.int64)], ["probabilities"], axis=1))
    free_output(model, "batch", "two_classes")


def no_softmax(model: onnx.ModelProto) -> None:
    (softmax,) = [node for node in model.graph.node if node.op_type == "Softmax"]
    softmax.CopyFrom(helper.make_node("Identity", softmax.input, softmax.output))


def softmax_twice(model: onnx.ModelProto) -> None:
    on_output(model, helper.make_node("Softmax", ["before"], ["probabilities"], axis=1))


def softmax_over_the_batch(model: onnx.ModelProto) -> None:
    (softmax,) = [node for node in model.graph.node if node.op_type == "Softmax"]
    softmax.CopyFrom(helper.make_node("Softmax", softmax.input, softmax.output, axis=0))


def not_a_number(model: onnx.ModelProto) -> None:
    on_output(model, helper.make_node("Add", ["before", constant(model, "nan", np.nan)], ["probabilities"]))


def another_name(model: onnx.ModelProto) -> None:
    (softmax,) = [node for node in model.graph.node if "probabilities" in node.output]
    softmax.output[0] = model.graph.output[0].name = "scores"


def lost_weights(model: onnx.ModelProto) -> None:
    scaled(model, "head.weight", 0)


def a_little_off(model: onnx.ModelProto) -> None:
    scaled(model, "head.weight", 1.01)


GRAPHS: dict[str, Callable[[onnx.ModelProto], None]] = {
    function.__name__: function
    for function in (
        no_normalisation,
        other_normalisation,
        twice_normalised,
        swapped_channels,
        transposed_image,
        shrunk_inside,
        only_right_at_its_size,
        depends_on_neighbours,
        fixed_batch,
        transposed_output,
        permuted_output,
        one_class_missing,
        no_softmax,
        softmax_twice,
        softmax_over_the_batch,
        not_a_number,
        another_name,
        lost_weights,
        a_little_off,
    )
}


def _classes(card: Card, names: Sequence[str]) -> Card:
    return replace(card, classes=tuple(names))


CARDS: dict[str, Callable[[Card], Card]] = {
    "permuted classes": lambda card: _classes(card, [*card.classes[1:], card.classes[0]]),
    "stale class": lambda card: _classes(card, ["another", *card.classes[1:]]),
    "one class fewer": lambda card: _classes(card, card.classes[:-1]),
    "one class more": lambda card: _classes(card, [*card.classes, "zebra"]),
    "sides swapped": lambda card: replace(card, input=replace(card.input, size=card.input.size[::-1])),
    "twice the size": lambda card: replace(card, input=replace(card.input, size=(34, 22))),
    "stretched": lambda card: replace(card, input=replace(card.input, resize="stretch")),
    "grey": lambda card: replace(card, input=replace(card.input, channels=1, mean=(0.4,), std=(0.2,))),
    "another mean": lambda card: replace(card, input=replace(card.input, mean=(0.5, 0.5, 0.5))),
    "another task": lambda card: replace(card, task="segment"),
}
