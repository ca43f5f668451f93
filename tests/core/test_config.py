"""The configuration: what each key takes, what is said of a wrong one, and that it comes back whole from JSON."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from saccade.core import config
from saccade.core.config import AugmentConfig, TrainConfig
from saccade.core.errors import UserError

# For each key: texts it takes with the value they give, and texts it refuses.
TEXT = ([("x", "x"), ('"a b"', "a b"), ("2024", "2024"), ("null", "null"), ("[1]", "[1]")], [])
SHARE = ([("0", 0.0), ("0.5", 0.5), ("1", 1.0)], ["-0.1", "1.1", "nan", "NaN", "inf", "much", "[1]", "null", "{}"])
POSITIVE = ([("0", 0.0), ("12.5", 12.5)], ["-1", "nan", "inf", "Infinity", "1e999", "x", "null", "true,false"])
FLAG = ([("true", True), ("false", False), ("1", True), ("no", False)], ["2", "maybe", "null", "[true]"])
BELOW_ONE = ([("0", 0.0), ("0.9", 0.9)], ["1", "-0.1", "nan", "x"])
CASES: dict[str, tuple[list[tuple[str, Any]], list[str]]] = {
    "data": TEXT,
    "task": TEXT,
    "model": TEXT,
    "pretrained": FLAG,
    "weights": TEXT,
    "weights_share": SHARE,
    "license": ([('["mit","bsd"]', ("mit", "bsd")), ("[]", ())], ["mit", "[1]", "null"]),
    "epochs": POSITIVE,
    "minutes": ([("null", None), ("0.5", 0.5)], ["-1", "nan", "inf", "soon"]),
    "size": (
        [
            ("17", (17, 17)),
            ("17x11", (17, 11)),
            ("17X11", (17, 11)),
            ("[17, 11]", (17, 11)),
            (" 8 x 9 ", (8, 9)),
            ("16384", (16384, 16384)),
        ],
        ["0", "-1", "16385", "17x", "x", "", "1x2x3", "1.5", "big", "17×11", "nan", "²"],
    ),
    "channels": ([("1", 1), ("3", 3), ("4", 4), ("13", 13), ("1024", 1024)], ["0", "-1", "1025", "2.5", "rgb", "null"]),
    "batch": ([("1", 1), ("64", 64)], ["0", "-1", "1.5", "x", "null", "nan"]),
    "micro_batch": ([("0", 0), ("8", 8)], ["-1", "0.5", "x"]),
    "optimizer": ([("sgd", "sgd"), ("adamw", "adamw"), ("muon", "muon")], ["adam", "1", "SGD "]),
    "lr": POSITIVE,
    "momentum": BELOW_ONE,
    "betas": ([("[0,0.99]", (0.0, 0.99))], ["0.9", "[0.9]", "[0.9,1]", "[-0.1,0.9]", "x"]),
    "weight_decay": POSITIVE,
    "warmup": SHARE,
    "label_smoothing": BELOW_ONE,
    "ema": SHARE,
    "layer_decay": ([("1", 1.0), ("0.75", 0.75)], ["0", "1.1", "-1", "nan", "x"]),
    "unfreeze": ([("0", 0.0), ("0.5", 0.5)], ["1", "-0.1", "nan", "x"]),
    "start_decay": POSITIVE,
    "clip": POSITIVE,
    "on_nan": ([(name, name) for name in ("stop", "skip", "back")], ["", "ignore", "1"]),
    "patience": ([("0", 0), ("3", 3)], ["-1", "1.5"]),
    "seed": ([("0", 0), ("9223372036854775807", (1 << 63) - 1)], ["-1", "9223372036854775808", "x", "9" * 5000]),
    "device": TEXT,
    "precision": ([(name, name) for name in ("auto", "fp32", "bf16", "fp16")], ["fp8", "32"]),
    "channels_last": FLAG,
    "workers": ([("null", None), ("0", 0), ("8", 8)], ["-1", "x"]),
    "skip_bad": FLAG,
    "compile": FLAG,
    "shard": FLAG,
    "images": FLAG,
    "edits": ([("[]", ()), ('["at step 5: deepen 0 +1"]', ("at step 5: deepen 0 +1",))], ["x", "1", "[1]"]),
    "augment.flip": SHARE,
    "augment.crop": ([("0.01", 0.01), ("1", 1.0)], ["0", "1.01", "-1", "nan"]),
    "augment.shift": ([("0.5", 0.5)], ["0.51", "-0.1", "nan"]),
    "augment.scale": ([("0.99", 0.99)], ["1", "-0.1", "nan"]),
    "augment.rotate": ([("180", 180.0)], ["181", "-1", "nan"]),
    "augment.shear": ([("60", 60.0)], ["61", "-1", "nan"]),
    "augment.color": SHARE,
    "augment.hue": ([("0.5", 0.5)], ["0.6", "-0.1", "nan"]),
    "augment.grey": SHARE,
    "augment.erase": SHARE,
    "augment.resize": ([("[0.1, 2]", (0.1, 2.0)), ("[1.0, 1.0]", (1.0, 1.0))], ["[0, 1]", "[1, 9]", "1.5", "[1]"]),
    "augment.mosaic": SHARE,
    "augment.paste": SHARE,
    "augment.mixup": SHARE,
    "augment.cutmix": SHARE,
    "objects.nms": (
        [("", ""), ("class", "class"), ("agnostic", "agnostic"), ("soft", "soft"), ("none", "none")],
        ["hard", "1", "true"],
    ),
    "segmentation.native": FLAG,
    "segmentation.multi": FLAG,
    "segmentation.cross_entropy": POSITIVE,
    "segmentation.focal": POSITIVE,
    "segmentation.dice": POSITIVE,
    "segmentation.lovasz": POSITIVE,
    "segmentation.boundary": POSITIVE,
    "segmentation.coarse": SHARE,
    "objects.coarse": SHARE,
    "objects.stuff": ([("[]", ()), ("[0, 6]", (0, 6))], ["[-1]", "[0.5]", "x", "1"]),
    "segmentation.class_weights": ([("[]", ()), ("[1, 2.5]", (1.0, 2.5))], ["[0]", "[-1, 1]", "x", "1"]),
    "generation.conditional": FLAG,
    "generation.latent": ([("0", 0), ("128", 128)], ["-1", "1.5", "65537", "x"]),
    "generation.features": TEXT,
    "generation.loss": ([(name, name) for name in ("relativistic", "non-saturating", "hinge", "wasserstein")], ["wgan", "1"]),
    "generation.r1": POSITIVE,
    "generation.r2": POSITIVE,
    "generation.gradient_penalty": POSITIVE,
    "generation.penalty_every": ([("1", 1), ("16", 16)], ["0", "-1", "1.5"]),
    "generation.augment": SHARE,
    "generation.adaptive": FLAG,
    "generation.perceptual": POSITIVE,
    "generation.adversarial": POSITIVE,
    "generation.adversarial_after": ([("0", 0), ("500", 500)], ["-1", "0.5"]),
    "generation.likelihood": ([(name, name) for name in ("", "logistic", "gaussian", "bernoulli")], ["mse", "1"]),
    "generation.beta": POSITIVE,
    "generation.kl_warmup": ([("0", 0), ("500", 500)], ["-1", "0.5"]),
    "generation.free_bits": POSITIVE,
}


KEYS = config.keys()


def read(changed: TrainConfig, key: str) -> Any:
    value: Any = changed
    for name in key.split("."):
        value = getattr(value, name)
    return value


def apply(text: str) -> TrainConfig:
    key, value = config.parse_override(text)
    return config.override(TrainConfig(), {key: value})


def test_every_key_is_tried_here() -> None:
    assert sorted(CASES) == sorted(KEYS)
    assert len(set(KEYS)) == len(KEYS) and not set(config.GROUPS) & set(KEYS)


@pytest.mark.parametrize(("key", "text", "value"), [(key, text, value) for key, (good, _) in CASES.items() for text, value in good])
def test_what_a_key_takes(key: str, text: str, value: Any) -> None:
    changed = apply(f"{key}={text}")
    assert read(changed, key) == value and type(read(changed, key)) is type(value)
    others = [name for name in KEYS if name != key]
    assert [read(changed, name) for name in others] == [read(TrainConfig(), name) for name in others]


@pytest.mark.parametrize(("key", "text"), [(key, text) for key, (_, bad) in CASES.items() for text in bad])
def test_what_a_key_refuses_in_one_line_that_names_it(key: str, text: str) -> None:
    with pytest.raises(UserError) as caught:
        apply(f"{key}={text}")
    line = str(caught.value)
    assert key in line and "\n" not in line and "pydantic" not in line and "http" not in line


def test_a_value_may_hold_equal_signs_and_a_key_spaces() -> None:
    assert apply(" weights = a=b ").weights == "a=b"
    with pytest.raises(UserError, match="key=value"):
        config.parse_override("lr")


def test_a_deep_value_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="lr"):
        apply("lr=" + "[" * 100_000)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("learning_rate", "lr"),
        ("epoch", "epochs"),
        ("batchsize", "batch"),
        ("augment.flips", "augment.flip"),
        ("wieght_decay", "weight_decay"),
        ("mixup", "augment.mixup"),
        ("LR", "lr"),
    ],
)
def test_a_typo_is_answered_with_the_nearest_names(typed: str, meant: str) -> None:
    for call in (lambda: config.parse_override(f"{typed}=1"), lambda: config.override(TrainConfig(), {typed: 1})):
        with pytest.raises(UserError) as caught:
            call()
        assert repr(typed) in str(caught.value)
        if meant != "lr" or typed == "LR":
            assert meant in caught.value.fix
    with pytest.raises(UserError, match="did you mean"):
        config.from_dict({typed: 1})


@pytest.mark.parametrize(
    "raw",
    [
        None,
        [],
        "lr",
        {"lr": "x"},
        {"augment": 5},
        {"augment": {"flip": 2}},
        {"augment": {"flop": 1}},
        {"size": 64},
        {"size": [1, 2, 3]},
        {"size": [0, 5]},
        {1: 2},
        {"lr": float("nan")},
        {"lr": float("inf")},
        {"minutes": float("inf")},
        {"augment": None},
        {"": 1},
    ],
)
def test_from_dict_refuses_in_one_line(raw: Any) -> None:
    with pytest.raises(UserError) as caught:
        config.from_dict(raw, where="run.json")
    assert str(caught.value).startswith("run.json: ") and "\n" not in str(caught.value)


def test_round_trip_through_json() -> None:
    changed = TrainConfig(
        data="/ü/ß",
        model="m",
        epochs=2.5,
        minutes=0.1,
        size=(17, 11),
        channels=1,
        optimizer="sgd",
        seed=(1 << 63) - 1,
        workers=3,
        images=False,
        augment=AugmentConfig(flip=0.5, crop=0.3, hue=0.25, cutmix=1.0),
    )
    for value in (TrainConfig(), changed):
        plain = json.loads(json.dumps(value.to_dict(), allow_nan=False))
        assert config.from_dict(plain) == value
        assert config.from_dict(value.to_dict()) == value
    assert config.from_dict({}) == TrainConfig()
    assert set(changed.to_dict()) == {field.name for field in dataclasses.fields(TrainConfig)}


def test_override_leaves_the_first_and_keeps_what_was_set() -> None:
    first = TrainConfig(size=(17, 11), augment=AugmentConfig(flip=0.5))
    changed = config.override(first, {"augment.crop": 0.5, "lr": 0.1})
    assert first == TrainConfig(size=(17, 11), augment=AugmentConfig(flip=0.5))
    assert changed == TrainConfig(size=(17, 11), lr=0.1, augment=AugmentConfig(flip=0.5, crop=0.5))
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.lr = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(("key", "value"), [("crop", 0.9), ("scale", 0.1), ("rotate", 1.0), ("shear", 1.0)])
def test_zooms(key: str, value: float) -> None:
    assert AugmentConfig(**{key: value}).zooms
    assert not AugmentConfig(flip=1, shift=0.1, color=1, mixup=1).zooms
