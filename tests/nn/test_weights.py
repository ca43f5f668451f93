"""Tensors to buffers and back, bit for bit; what does not fit is named."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from saccade.core.errors import UserError
from saccade.core.modelfile import Buffer, pack, unpack
from saccade.nn.weights import DTYPES, Rows, from_buffers, load_into, load_matching, rows_of_classes, to_buffers

SHAPES = ((), (0,), (0, 3), (1,), (17, 11), (2, 3, 5))


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_every_dtype_and_shape_comes_back_through_a_file(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    state = {f"t{i}": (torch.rand(shape) * 100 - (50 if dtype.is_signed else 0)).to(dtype) for i, shape in enumerate(SHAPES)}
    buffers, _ = unpack(pack(to_buffers(state)))
    again = from_buffers(buffers)
    for name, tensor in state.items():
        assert (again[name].dtype, again[name].shape) == (tensor.dtype, tensor.shape)
        assert bits(again[name]) == bits(tensor)


@given(st.permutations(range(4)))
def test_views_are_made_contiguous(axes: list[int]) -> None:
    tensor = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5).permute(axes)
    assert torch.equal(from_buffers(to_buffers({"x": tensor}))["x"], tensor)


def test_channels_last_and_strided_and_conjugate() -> None:
    state = {
        "last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "strided": torch.rand(10)[::3],
        "expanded": torch.rand(1, 4).expand(3, 4),
        "conjugate": torch.rand(3, dtype=torch.complex64).conj(),
    }
    again = from_buffers(to_buffers(state))
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())


def test_tied_tensors_are_copies_in_the_order_of_names() -> None:
    shared = torch.ones(3)
    buffers = to_buffers({"b": shared, "a": shared})
    shared.zero_()
    again = from_buffers(buffers)
    assert list(buffers) == ["a", "b"]
    assert torch.equal(again["a"], torch.ones(3))
    again["a"].add_(1)
    assert torch.equal(again["b"], torch.ones(3))


def test_gradients_are_left_behind() -> None:
    again = from_buffers(to_buffers(nn.Linear(2, 3)))
    assert not again["weight"].requires_grad


def test_what_is_no_tensor_is_refused() -> None:
    with pytest.raises(TypeError, match="extra must be a dense tensor"):
        to_buffers({"extra": torch.rand(3).to_sparse()})


def test_bytes_that_do_not_fill_the_shape() -> None:
    with pytest.raises(UserError, match="do not fill"):
        from_buffers({"x": Buffer("F32", (3,), b"\0" * 8)})
    with pytest.raises(UserError, match="no dtype"):
        from_buffers({"x": Buffer("F4", (2,), b"\0")})


def test_load_into_restores_all() -> None:
    source, target = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
    source.running_mean = torch.rand(4)
    load_into(target, to_buffers(source), where="a.safetensors")
    assert all(torch.equal(value, target.state_dict()[name]) for name, value in source.state_dict().items())


def test_half_precision_fits_full() -> None:
    source, target = nn.Linear(2, 3).to(torch.bfloat16), nn.Linear(2, 3)
    load_into(target, to_buffers(source), where="")
    assert torch.equal(target.weight, source.weight.float())


def test_what_does_not_fit_is_counted_and_named_and_nothing_changes() -> None:
    target = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    before = {name: value.clone() for name, value in target.state_dict().items()}
    buffers = to_buffers(target)
    del buffers["1.bias"], buffers["1.running_mean"], buffers["1.running_var"]
    buffers["more"] = buffers["0.bias"]
    buffers["0.weight"] = Buffer("F32", (5, 2), b"\0" * 40)
    buffers["1.num_batches_tracked"] = Buffer("F32", (), b"\0" * 4)
    with pytest.raises(UserError) as caught:
        load_into(target, buffers, where="m.safetensors")
    text = str(caught.value)
    assert text.startswith("m.safetensors: the weights do not fit the model: 3 missing (1.bias, 1.running_mean, ...)")
    assert "1 unexpected (more)" in text
    assert "0.weight: is 5x2, must be 3x2" in text
    assert "1.num_batches_tracked: is F32, must be I64" in text
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


def test_matching_takes_what_fits_and_reports_the_rest() -> None:
    source = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 10))
    target = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    report = load_matching(target, to_buffers(source))
    assert report.loaded == 2
    assert report.other == ("1.weight: is 10x3, must be 4x3", "1.bias: is 10, must be 4")
    first, expected = target[0].weight, source[0].weight
    assert torch.equal(first, expected)
    assert not load_matching(target, to_buffers(target))


def head(classes: int) -> nn.Module:
    torch.manual_seed(classes)
    outputs = {"body": 4, "one": classes, "background": 1 + classes, "four": 4 * classes}
    return nn.ModuleDict({name: nn.Linear(4, count) for name, count in outputs.items()})


def test_a_row_that_stands_for_nothing_is_the_last_one() -> None:
    """As in the embedding of DETR's classes with noise: classes, then padding."""
    ours, wider, theirs = (nn.Embedding(count + 1, 2, padding_idx=count) for count in (3, 4, 5))
    with torch.no_grad():
        theirs.weight[5] = 7.0
    before = ours.weight.detach().clone()
    rows = rows_of_classes(ours, wider, 3)
    assert rows == {"weight": Rows(0, 1, 1)} and rows["weight"].others == 1
    assert load_matching(ours, to_buffers(theirs), rows, [(4, 0), (0, 2)]).loaded == 1
    assert torch.equal(ours.weight[[0, 2, 3]], theirs.weight[[4, 0, 5]]) and torch.equal(ours.weight[1], before[1])


def test_rows_of_the_same_classes_are_kept() -> None:
    """Of another number and order of classes, with a background before them, and several rows a class."""
    ours, theirs = head(3), head(5)
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    rows = rows_of_classes(ours, head(4), 3)
    wanted = {"one": Rows(0, 1), "background": Rows(1, 1), "four": Rows(0, 4)}
    assert rows == {f"{name}.{kind}": part for name, part in wanted.items() for kind in ("weight", "bias")}
    report = load_matching(ours, to_buffers(theirs), rows, [(4, 0), (1, 2)])
    assert report.loaded == 8 and not report
    found, other = ours.state_dict(), theirs.state_dict()
    assert torch.equal(found["body.weight"], other["body.weight"])
    for kind in ("weight", "bias"):
        one, back, four = (found[f"{name}.{kind}"] for name in ("one", "background", "four"))
        assert torch.equal(one[[0, 2]], other[f"one.{kind}"][[4, 1]]) and torch.equal(one[1], before[f"one.{kind}"][1])
        assert torch.equal(back[[0, 1, 3]], other[f"background.{kind}"][[0, 5, 2]])
        assert torch.equal(back[2], before[f"background.{kind}"][2])
        assert torch.equal(four[:4], other[f"four.{kind}"][16:20]) and torch.equal(four[8:], other[f"four.{kind}"][4:8])
        assert torch.equal(four[4:8], before[f"four.{kind}"][4:8])
    kept = ours.state_dict()["one.weight"].clone()
    load_matching(ours, to_buffers(nn.ModuleDict({"one": nn.Linear(5, 3)})), rows, [(0, 0)])
    assert torch.equal(ours.state_dict()["one.weight"], kept), "of another width: left as it is"
