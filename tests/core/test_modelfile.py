"""The one-file model: both ways with the safetensors library, and hostile or damaged files by the fault list."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from saccade.core import modelfile
from saccade.core.card import Card, InputSpec
from saccade.core.errors import UserError
from saccade.core.files import DamagedError
from saccade.core.modelfile import Buffer

CARD = Card(
    task="classify",
    classes=("Ente", "rot & weiß", "\u2028"),
    architecture={"name": "small", "width": 8},
    input=InputSpec(3, (17, 11), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
    metrics={"accuracy": 0.75, "ece": None},
    version="0.1.0",
)


def buffer(array: np.ndarray[Any, Any], dtype: str = "F32") -> Buffer:
    return Buffer(dtype, array.shape, array.tobytes())


def model() -> dict[str, Buffer]:
    return {
        "stem.weight": buffer(np.arange(17 * 11, dtype=np.float32).reshape(17, 11)),
        "norm.num_batches_tracked": buffer(np.array(3), "I64"),
        "head.weight": Buffer("BF16", (2, 3), bytes(range(12))),
        "a.empty": Buffer("F32", (0, 4), b""),
    }


def same(found: dict[str, Buffer], expected: dict[str, Buffer]) -> bool:
    return list(found) == sorted(expected) and all(
        (found[name].dtype, found[name].shape, bytes(found[name].data)) == (b.dtype, b.shape, bytes(b.data)) for name, b in expected.items()
    )


def raw_file(header: Any, data: bytes = b"", *, pad: int = 0) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * pad
    return struct.pack("<Q", len(text)) + text + data


def entry(shape: Any = (2,), offsets: Any = (0, 8), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_a_model_comes_back_bit_by_bit(tmp_path: Path) -> None:
    path = modelfile.save(tmp_path / "best.safetensors", model(), CARD)
    tensors, card = modelfile.load(path)
    assert same(tensors, model())
    assert card == CARD == modelfile.read_card(path)
    assert [p.name for p in tmp_path.iterdir()] == ["best.safetensors"]


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    reordered = dict(reversed(model().items()))
    first = modelfile.save(tmp_path / "a", model(), CARD).read_bytes()
    assert modelfile.save(tmp_path / "b", reordered, CARD).read_bytes() == first
    assert modelfile.save(tmp_path / "b", reordered, CARD.with_metrics({"accuracy": 0.5})).read_bytes() != first
    assert list(safetensors.safe_open(tmp_path / "a", "numpy").metadata()) == ["saccade"]


def test_a_view_is_as_good_as_bytes(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    path = modelfile.save(tmp_path / "m", {"w": Buffer("F32", (2, 3), memoryview(array))}, CARD)
    assert np.array_equal(safetensors.numpy.load_file(path)["w"], array)


def test_no_tensor_at_all(tmp_path: Path) -> None:
    assert modelfile.load(modelfile.save(tmp_path / "m", {}, CARD)) == ({}, CARD)


def test_the_library_reads_what_we_write_and_writes_the_same_bytes() -> None:
    arrays = {
        f"{name}.{index}": np.arange(index * 6).reshape(2, 3, index).astype(name)
        for name in ("bool", "u1", "i1", "i2", "u2", "f2", "i4", "u4", "f4", "c8", "f8", "i8", "u8")
        for index in (1, 0, 2)
    }
    kinds = {"bool": "BOOL", "float16": "F16", "float32": "F32", "float64": "F64", "complex64": "C64"}
    buffers = {
        key: buffer(array, kinds.get(array.dtype.name) or f"{array.dtype.kind.upper()}{array.dtype.itemsize * 8}")
        for key, array in arrays.items()
    }
    ours = modelfile.pack(buffers, {"saccade": "ü \n"})
    assert ours == safetensors.numpy.save(arrays, {"saccade": "ü \n"})
    assert all(np.array_equal(array, arrays[key]) for key, array in safetensors.numpy.load(ours).items())
    found, metadata = modelfile.unpack(ours)
    assert same(found, buffers)
    assert metadata == {"saccade": "ü \n"}


@pytest.mark.parametrize("dtype", ["BF16", "F8_E5M2", "F8_E4M3", "F8_E8M0"])
def test_dtypes_that_numpy_lacks(dtype: str) -> None:
    size = 2 if dtype == "BF16" else 1
    buffers = {"w": Buffer(dtype, (3,), bytes(range(3 * size))), "v": Buffer("U8", (), b"x")}
    data = modelfile.pack(buffers)
    assert dict(safetensors.deserialize(data))["w"]["dtype"] == dtype
    assert same(modelfile.unpack(memoryview(data))[0], buffers)


def test_several_metadata_keys_are_in_order() -> None:
    texts = {key: key * 3 for key in "zyxabcdefgh"}
    assert modelfile.pack({}, texts) == modelfile.pack({}, dict(sorted(texts.items())))
    assert modelfile.unpack(modelfile.pack({}, texts))[1] == texts


def test_a_file_of_the_library_with_our_card_is_a_model(tmp_path: Path) -> None:
    safetensors.numpy.save_file({"w": np.ones(3, np.float32)}, tmp_path / "m", {"saccade": CARD.to_json()})
    tensors, card = modelfile.load(tmp_path / "m")
    assert card == CARD
    assert tensors["w"].shape == (3,)


def test_each_flipped_bit_of_a_model_is_found(tmp_path: Path) -> None:
    card = Card("classify", ("a", "b"), {}, InputSpec(1, (8, 8)))
    path = modelfile.save(tmp_path / "m", {"w": Buffer("BF16", (2,), b"\0\1\2\3"), "b": Buffer("U8", (1,), b"x")}, card)
    content = path.read_bytes()
    header = 8 + struct.unpack("<Q", content[:8])[0]
    for bit in range(len(content) * 8):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(UserError):
            modelfile.load(path)
        if bit // 8 < header:
            with pytest.raises(UserError):
                modelfile.read_card(path)


def test_each_truncation_is_found_and_is_one_line(tmp_path: Path) -> None:
    path = modelfile.save(tmp_path / "m", model(), CARD)
    content = path.read_bytes()
    for size in range(len(content)):
        path.write_bytes(content[:size])
        for read in (modelfile.load, modelfile.read_card):
            with pytest.raises(UserError) as caught:
                read(path)
            assert caught.value.fix
            assert str(path) in caught.value.where
    path.write_bytes(content + b"\0")
    with pytest.raises(DamagedError):
        modelfile.load(path)


HOSTILE = {
    "name that climbs": raw_file({"../../x": entry()}, bytes(8)),
    "absolute name": raw_file({"/etc/x": entry()}, bytes(8)),
    "backslash": raw_file({"a\\b": entry()}, bytes(8)),
    "dots": raw_file({"a..b": entry()}, bytes(8)),
    "nul": raw_file({"a\0b": entry()}, bytes(8)),
    "line break at the end": raw_file({"a\n": entry()}, bytes(8)),
    "long name": raw_file({"a" * 257: entry()}, bytes(8)),
    "no name": raw_file({"": entry()}, bytes(8)),
    "same name twice": raw_file(b'{"a":%b,"a":%b}' % ((json.dumps(entry()).encode(),) * 2), bytes(8)),
    "same key twice": raw_file(b'{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}', bytes(8)),
    "same metadata twice": raw_file(b'{"__metadata__":{"saccade":"1","saccade":"2"}}'),
    "metadata is no text": raw_file({"__metadata__": {"saccade": 1}}),
    "metadata is a list": raw_file({"__metadata__": []}),
    "huge axis beside zero": raw_file({"a": entry([0, 1 << 60], [0, 0])}),
    "huge axes beside zero": raw_file({"a": entry([0, 1 << 30, 1 << 30], [0, 0])}),
    "product overflows": raw_file({"a": entry([1 << 32, 1 << 32, 1 << 32], [0, 0])}),
    "negative axis": raw_file({"a": entry([-2, -1], [0, 8])}, bytes(8)),
    "float axis": raw_file({"a": entry([2.0], [0, 8])}, bytes(8)),
    "bool axis": raw_file({"a": entry([True, 2], [0, 8])}, bytes(8)),
    "axes without end": raw_file({"a": entry([1] * 1000, [0, 4])}, bytes(4)),
    "shape is no list": raw_file({"a": entry("2", [0, 8])}, bytes(8)),
    "too few bytes": raw_file({"a": entry([3], [0, 8])}, bytes(8)),
    "offsets backwards": raw_file({"a": entry([2], [8, 0])}, bytes(8)),
    "offsets outside": raw_file({"a": entry([2], [8, 16])}, bytes(8)),
    "three offsets": raw_file({"a": entry([2], [0, 8, 8])}, bytes(8)),
    "overlap": raw_file({"a": entry([2], [0, 8]), "b": entry([2], [4, 12])}, bytes(12)),
    "alias": raw_file({"a": entry([2], [0, 8]), "b": entry([2], [0, 8])}, bytes(8)),
    "hole": raw_file({"a": entry([2], [0, 8]), "b": entry([2], [12, 20])}, bytes(20)),
    "bytes behind": raw_file({"a": entry()}, bytes(9)),
    "unknown dtype": raw_file({"a": entry(dtype="F33")}, bytes(8)),
    "dtype is a list": raw_file({"a": entry(dtype=["F32"])}, bytes(8)),
    "extra key": raw_file({"a": {**entry(), "code": "x"}}, bytes(8)),
    "missing key": raw_file({"a": {"dtype": "F32"}}, bytes(8)),
    "tensor is a list": raw_file({"a": []}, bytes(8)),
    "header is a list": raw_file([]),
    "header is not JSON": raw_file(b"{not json}"),
    "header is not UTF-8": raw_file(b'{"a\xff": 1}'),
    "NaN in the header": raw_file(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}', bytes(8)),
    "digits without end": raw_file(b'{"a":{"dtype":"F32","shape":[' + b"9" * 10000 + b'],"data_offsets":[0,8]}}', bytes(8)),
    "deep": raw_file(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "header of zero": struct.pack("<Q", 0) + b"{}",
    "header longer than the file": struct.pack("<Q", 100) + b"{}",
    "length overflows": struct.pack("<Q", (1 << 64) - 1) + b"{}",
    "length is negative": struct.pack("<q", -1) + b"{}",
    "long header": raw_file({}, pad=(8 << 20) + 1),
    "header is most of the file": raw_file({"a": entry()}, bytes(8), pad=2 << 20),
    "seven bytes": b"\x02\0\0\0\0\0\0",
    "nothing": b"",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(HOSTILE[name])
    for read in (lambda: modelfile.unpack(HOSTILE[name], where="there"), lambda: modelfile.load(path), lambda: modelfile.read_card(path)):
        with pytest.raises(UserError) as caught:
            read()
        assert len(str(caught.value).splitlines()) == 1
        assert len(str(caught.value)) < 700
        assert "there" in str(caught.value) or str(path) in str(caught.value)


BAD_CARDS = ["", "[]", "{}", "1", "[" * 500 + "]" * 500, '{"sums": 1}', '{"sums": {"data": 1, "header": []}}', "\ud800"]


@pytest.mark.parametrize("text", [*BAD_CARDS, CARD.to_json().replace("Ente", "\\ud800"), CARD.to_json().replace("0.75", "1e999")])
def test_a_hostile_card_is_refused(tmp_path: Path, text: str) -> None:
    header = {"__metadata__": {"saccade": text}, "a": entry()}
    (tmp_path / "m").write_bytes(raw_file(header, bytes(8)))
    for read in (modelfile.load, modelfile.read_card):
        with pytest.raises(UserError):
            read(tmp_path / "m")


@pytest.mark.parametrize("open_bracket", ["[", '{"a":'])
def test_a_card_of_any_depth_is_a_card_or_refused(tmp_path: Path, open_bracket: str) -> None:
    close = "]" if open_bracket == "[" else "}"
    for depth in (*range(100, 1100, 50), 5_000, 50_000):
        deep = open_bracket * depth + "1" + close * depth
        text = CARD.to_json().replace('"width":8', f'"width":{deep}')
        (tmp_path / "m").write_bytes(raw_file({"__metadata__": {"saccade": text}}))
        with contextlib.suppress(UserError):
            assert modelfile.load(tmp_path / "m")[1].to_json() == text
            assert depth < 1000


def test_a_changed_card_or_sum_is_found(tmp_path: Path) -> None:
    path = modelfile.save(tmp_path / "m", model(), CARD)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"Ente", b"Gans"))
    with pytest.raises(DamagedError, match="header does not match"):
        modelfile.read_card(path)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(DamagedError, match="weights do not match"):
        modelfile.load(path)


def test_what_is_not_a_model_says_what_to_do(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("data.pkl", b"\x80\x02}.")
    (tmp_path / "old.pth").write_bytes(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")
    (tmp_path / "noise").write_bytes(hashlib.shake_128(b"noise").digest(5000))
    (tmp_path / "text.safetensors").write_text("hello world, this is not it")
    safetensors.numpy.save_file({"w": np.ones(2)}, tmp_path / "other.safetensors", {"format": "pt"})
    os.mkfifo(tmp_path / "pipe")
    expected = {
        "zip.pt": "pickle", "old.pth": "pickle", "noise": "something else", "text.safetensors": "something else",
        "other.safetensors": "no card", "": "must be a file", "gone": "no such file", "pipe": "must be a file",
    }  # fmt: skip
    for name, words in expected.items():
        for read in (modelfile.load, modelfile.read_card):
            with pytest.raises(UserError, match=words) as caught:
                read(tmp_path / name)
            assert caught.value.fix
            assert caught.value.where == str(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"hello", "must hold weights, as safetensors or as a checkpoint of torch"),
        (b"hello, world", r"holds something else \(download it again, or name another\)"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull brings the file"),
        (b"<!DOCTYPE html>", "it is a web page"),
    ],
)
def test_what_are_no_weights_of_others_either(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(UserError, match=words):
        modelfile.is_pickled(tmp_path / "w.pt")


def test_a_folder_is_no_weights(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"must be a file of weights, is a folder \(name the file of weights in it\)"):
        modelfile.is_pickled(tmp_path)
    (tmp_path / "best.safetensors").touch()
    with pytest.raises(UserError, match=r"is a folder \(of this run: .*best\.safetensors\)"):
        modelfile.is_pickled(tmp_path)


def test_a_header_of_640_bytes_is_not_taken_for_a_pickle() -> None:
    data = raw_file({"a": entry()}, bytes(8), pad=640 - len(json.dumps({"a": entry()})))
    assert data[:2] == b"\x80\x02"
    assert list(modelfile.unpack(data)[0]) == ["a"]


def test_a_long_card_and_many_tensors_pass(tmp_path: Path) -> None:
    tensors = {f"features.denseblock{i}.denselayer{i}.conv.weight": Buffer("F32", (1,), bytes(4)) for i in range(3000)}
    card = Card("classify", tuple(f"a rather long class name {i}" for i in range(10_000)), {}, InputSpec(3, (8, 8)))
    assert modelfile.load(modelfile.save(tmp_path / "m", tensors, card))[1] == card


def test_what_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    path = modelfile.save(tmp_path / "m", model(), CARD)
    before = path.read_bytes()
    long_card = Card("classify", tuple(f"{i:0100}" for i in range(20_000)), {}, InputSpec(3, (8, 8)))
    broken_card = Card("classify", ("caf\udce9",), {}, InputSpec(3, (8, 8)))
    bad: list[tuple[dict[str, Buffer], Card, str]] = [
        ({"../x": Buffer("U8", (1,), b"x")}, CARD, "name"),
        ({"x": Buffer("U8", (2,), b"x")}, CARD, "cannot have"),
        ({"x": Buffer("float32", (1,), b"xxxx")}, CARD, "dtype"),
        (model(), long_card, "shorter class names"),
        (model(), broken_card, "Unicode"),
    ]
    for tensors, card, words in bad:
        with pytest.raises(UserError, match=words):
            modelfile.save(path, tensors, card)
    assert path.read_bytes() == before


def test_non_finite_names_the_tensors() -> None:
    def bf16(*values: float) -> bytes:
        return (np.array(values, "<f4").view("<u4") >> 16).astype("<u2").tobytes()

    tensors = {
        "z.nan": buffer(np.array([1, np.nan], np.float32)),
        "a.inf": buffer(np.array([np.inf]), "F64"),
        "half": buffer(np.array([-np.inf], np.float16), "F16"),
        "bf.nan": Buffer("BF16", (2,), bf16(1.0, float("nan"))),
        "bf.inf": Buffer("BF16", (1,), bf16(float("-inf"))),
        "bf.fine": Buffer("BF16", (2,), bf16(3e38, -1e-40)),
        "e4m3": Buffer("F8_E4M3", (1,), b"\xff"), "e4m3.fine": Buffer("F8_E4M3", (1,), b"\x7e"),
        "e5m2": Buffer("F8_E5M2", (1,), b"\x7c"), "e5m2.fine": Buffer("F8_E5M2", (1,), b"\x7b"),
        "fine": buffer(np.array([3e38, -1e-45], np.float32)), "int": Buffer("I32", (1,), b"\xff" * 4), "empty": Buffer("F32", (0,), b""),
    }  # fmt: skip
    assert modelfile.non_finite(tensors) == ["a.inf", "bf.inf", "bf.nan", "e4m3", "e5m2", "half", "z.nan"]
    assert modelfile.non_finite({}) == []


@pytest.mark.processes
@pytest.mark.parametrize(("kind", "limit_mb"), [("model", 2.2 * 64), ("tensors", 2 * 40), ("small", 40)])
def test_memory_stays_bounded(tmp_path: Path, kind: str, limit_mb: float) -> None:
    """64 MB of weights cost at most about twice that; 40 MB of header are refused unread; 1 MiB of header is cheap."""
    path = tmp_path / "m"
    if kind == "model":
        modelfile.save(path, {"w": Buffer("U8", (64_000_000,), bytes(64_000_000))}, CARD)
    else:
        count = 700_000 if kind == "tensors" else 17_000
        path.write_bytes(
            raw_file(b"{" + b",".join(b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % i for i in range(count)) + b"}")
        )
    code = """if True:
        import resource, sys, numpy, safetensors
        from saccade.core import modelfile
        from saccade.core.errors import UserError
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            modelfile.load(sys.argv[1])
            print("loaded", end=" ")
        except UserError:
            print("refused", end=" ")
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
    """
    child = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    verdict, megabytes = child.stdout.split()
    assert verdict == ("loaded" if kind == "model" else "refused")
    assert float(megabytes) < limit_mb
