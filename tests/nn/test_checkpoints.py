"""Weights from elsewhere: whatever their names are wrapped in, matched by name, then by shape and order; refused below a share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from saccade.core.errors import UserError
from saccade.core.modelfile import pack
from saccade.nn import checkpoints
from saccade.nn.checkpoints import Checkpoint, Place
from saccade.nn.matching import match
from saccade.nn.weights import Rows, to_buffers

SHAPES = {"network.conv.weight": (4, 3, 3, 3), "network.bn.weight": (4,), "network.bn.bias": (4,), "network.head.weight": (5, 4)}


@pytest.mark.parametrize("wrapping", ["", "module.", "model.", "module.model.", "_orig_mod.", "ema_model.backbone.net.", "network."])
def test_any_wrapping(wrapping: str) -> None:
    file = {wrapping + name.removeprefix("network."): shape for name, shape in SHAPES.items()}
    file |= {"optimizer.state": (4,)} if not wrapping else {}
    found = match(SHAPES, file, {}, ordered=False)
    assert list(found.names) == list(SHAPES) and not found.ordered
    assert all(name.removeprefix("network.") == other.removeprefix(wrapping) for name, other in found.names.items())


def test_two_copies_take_one_of_them() -> None:
    file = {f"{copy}.{name.removeprefix('network.')}": shape for copy in ("student", "teacher") for name, shape in SHAPES.items()}
    found = match(SHAPES, file, {}, ordered=True)
    assert {other.partition(".")[0] for other in found.names.values()} == {"student"} and len(found.names) == 4


def test_an_averaged_copy_is_taken_before_what_it_is_of_whatever_stands_beside_both() -> None:
    file = {f"{copy}.{name.removeprefix('network.')}": shape for copy in ("model", "model_ema.module") for name, shape in SHAPES.items()}
    for beside in ({}, {"model_ema.n_averaged": (), "queue": (128, 65536)}):
        found = match(SHAPES, {**file, **beside}, {}, ordered=True)
        assert found.without == "model_ema.module." and len(found.names) == 4 and not found.ordered


def test_by_shape_and_order_only_where_all_agree() -> None:
    file = {"layer1.kernel": (4, 3, 3, 3), "layer2.gamma": (4,), "layer2.beta": (4,), "layer3.matrix": (5, 4)}
    assert match(SHAPES, file, {}, ordered=False).names == {}, "a file without an order says nothing"
    found = match(SHAPES, file, {}, ordered=True)
    assert found.names == dict(zip(SHAPES, file, strict=True)) and found.ordered == 4
    assert match(SHAPES, {**file, "layer4.matrix": (5, 5)}, {}, ordered=True).names == {}, "one more"
    assert match(SHAPES, {**file, "layer2.beta": (3,)}, {}, ordered=True).names == {}, "another shape"
    assert match(SHAPES, dict(reversed(file.items())), {}, ordered=True).names == {}, "another order"


def test_a_matrix_is_a_convolution_of_one_place() -> None:
    assert match({"fc.weight": (4, 6, 2, 2)}, {"fc.weight": (4, 24)}, {}, ordered=False).names
    assert not match({"fc.weight": (4, 6, 2, 2)}, {"fc.weight": (24, 4)}, {}, ordered=False).names


def test_rows_of_classes_fit_whatever_their_number() -> None:
    assert match({"head.weight": (5, 4)}, {"head.weight": (90, 4)}, {"head.weight": 1}, ordered=False).names
    assert not match({"head.weight": (5, 4)}, {"head.weight": (1, 4)}, {"head.weight": 1}, ordered=False).names
    assert not match({"head.weight": (5, 4)}, {"head.weight": (90, 3)}, {"head.weight": 1}, ordered=False).names


def network(classes: int = 3) -> nn.Module:
    torch.manual_seed(classes)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, classes))


def of(module: nn.Module, wrapping: str = "", *, leave: str = "") -> Checkpoint:
    tensors = {wrapping + name: buffer for name, buffer in to_buffers(module).items() if not (leave and name.startswith(leave))}
    return Checkpoint(Path("x.pt"), tensors)


def test_all_of_a_network_is_taken() -> None:
    model, other = network(), network()
    with torch.no_grad():
        other[0].weight.add_(1)
    taken = checkpoints.take(model, of(other, "module."), Place(), (), least=1.0)
    assert taken.share == 1.0 and taken.match.without == "module." and not taken.report
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())


def test_a_share_is_asked_for_and_nothing_changes_below_it() -> None:
    model, other = network(), network(4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UserError, match=r"fill \d+\.\d% of this network, must be 100% at least") as caught:
        checkpoints.take(model, of(other), Place(), (), least=1.0)
    assert "3.weight" in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    taken = checkpoints.take(model, of(other), Place(), (), least=0.5)
    assert torch.equal(model[0].weight, other[0].weight) and torch.equal(model[3].weight, before["3.weight"])
    assert 0.5 < taken.share < 1 and "3.weight" in str(taken)
    with pytest.raises(UserError, match=r"fill 0\.0%"):
        checkpoints.take(model, Checkpoint(Path("x"), {}), Place(), (), least=0.0)


def test_counters_of_batch_normalisation_are_not_missed() -> None:
    other = network()
    file = of(other)
    tensors = {name: buffer for name, buffer in file.tensors.items() if not name.endswith("num_batches_tracked")}
    assert checkpoints.take(network(), Checkpoint(file.path, tensors), Place(), (), least=1.0).share == 1.0


def test_rows_of_the_same_classes_alone() -> None:
    model, other = network(3), network(5)
    before = model[3].weight.detach().clone()
    rows = {"3.weight": Rows(0, 1), "3.bias": Rows(0, 1)}
    checkpoints.take(model, of(other), Place(rows), (), least=1.0)
    assert torch.equal(model[3].weight, before), "the file does not say whose rows they are"
    checkpoints.take(model, of(other), Place(rows), [(4, 1)], least=1.0)
    assert torch.equal(model[3].weight[1], other[3].weight[4]) and torch.equal(model[3].weight[0], before[0])
    assert checkpoints.classes(of(other), model, rows) == 5
    with pytest.raises(UserError, match="how many classes"):
        checkpoints.classes(of(other, leave="3."), model, rows)


def test_blue_first_becomes_red_first() -> None:
    model = network().eval()
    images = torch.rand(2, 3, 3, 3)
    before = model(images)
    checkpoints.turn_colours(model)
    assert torch.allclose(model(images.flip(1)), before, atol=1e-6)
    with pytest.raises(UserError):
        checkpoints.turn_colours(nn.Linear(2, 2))


def test_plain_safetensors_have_no_card(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(pack(to_buffers(network())))
    found = checkpoints.read(file)
    assert found.card is None and not found.ordered and "0.weight" in found.tensors
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError):
        checkpoints.read(file)
