"""Grad-CAM: it lies where the model looks, for every kind of layer, and comes back to the original image's pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from saccade.core.card import InputSpec
from saccade.core.errors import UserError
from saccade.core.prepare import prepare
from saccade.explanation.attribution import gradcam, to_original
from saccade.nn.backbones import classifier, feature_layer

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def score(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.gather(1, targets[:, None])[:, 0]


class LeftHalf(nn.Module):
    """uint8 [B, 3, H, W] -> [B, 2]: class 0 is the brightness of the left half alone, class 1 that of the right half."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3, padding=1)
        nn.init.constant_(self.layer.weight, 0.1)
        self.dropout = nn.Dropout(0.5)

    def forward(self, images: Tensor) -> Tensor:
        features = self.dropout(self.layer(images.float() / 255))
        middle = features.shape[3] // 2
        return torch.stack([features[..., :middle].mean((1, 2, 3)), features[..., middle:].mean((1, 2, 3))], 1)


class Normalized(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        outputs: Tensor = self.network(images.float() / 255)
        return outputs


def random_images(count: int, channels: int = 3, size: tuple[int, int] = (17, 11)) -> Tensor:
    return torch.randint(0, 256, (count, channels, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class Quadrant(nn.Module):
    """uint8 [B, 3, H, W] -> [B, 4]: a bright patch is found by a convolution whose filters each know one colour."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.ReLU())
        with torch.no_grad():
            self.layer[0].weight.copy_(torch.eye(3)[:, :, None, None])  # type: ignore[operator]

    def forward(self, images: Tensor) -> Tensor:
        outputs: Tensor = self.layer(images.float() / 255).mean((2, 3))
        return outputs


def test_the_map_lies_where_the_colour_of_the_class_is() -> None:
    images = torch.zeros(2, 3, 20, 30, dtype=torch.uint8)
    images[:, 0, :, :15] = 255  # class 0 is red: on the left
    images[:, 1, :, 15:] = 255  # class 1 is green: on the right
    model = Quadrant()
    left, right = gradcam(model, model.layer, images, score, [0, 1])
    assert left[:, :15].min() == 1
    assert left[:, 15:].max() == 0
    assert right[:, :15].max() == 0
    assert right[:, 15:].min() == 1


def test_evidence_against_the_class_is_cut_off() -> None:
    images = torch.zeros(1, 3, 20, 30, dtype=torch.uint8)
    images[:, 0, :, :15] = 255
    images[:, 1, :, 15:] = 255
    model = Quadrant()
    found = gradcam(model, model.layer, images, lambda outputs, targets: outputs[:, 0] - outputs[:, 1], [0])[0]
    assert found[:, :15].min() == 1
    assert found[:, 15:].max() == 0


@pytest.mark.long
def test_a_model_trained_to_look_left_is_seen_to_look_left() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 1, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2)
    )
    model = Normalized(network)
    images, labels = random_images(32, size=(16, 24)) // 4, torch.arange(32) % 2
    images[labels == 1, :, 4:12, 1:9] = 255  # what decides is on the left; the right is noise
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    maps = gradcam(model, network[3], images[1::2], score, [1] * 16)
    assert maps[:, :, :12].sum() > 10 * maps[:, :, 12:].sum()


def test_tokens_keep_their_places() -> None:
    """A vision transformer whose last block reads one token's place must be seen to look there."""

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.Identity()

        def forward(self, images: Tensor) -> Tensor:
            cells = nn.functional.avg_pool2d(images.float() / 255, 8).flatten(2).transpose(1, 2)
            tokens = self.norm(torch.cat([cells.mean(1, keepdim=True), cells], 1))
            return tokens[:, 1:].sum(-1) @ torch.eye(12)[:, [5]]

    images = torch.full((1, 3, 24, 32), 200, dtype=torch.uint8)
    model = Tokens()
    found = gradcam(model, model.norm, images, score, [0])[0]
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert (row // 8, column // 8) == (1, 1)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
@pytest.mark.parametrize("size", [(17, 11), (40, 64)])
def test_every_kind_of_layer(name: str, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network, _ = classifier(name, classes=3, size=size)
    model = Normalized(network)
    images = random_images(2, size=size)
    maps = gradcam(model, feature_layer(model, images[:1]), images, score, [0, 2])
    assert maps.shape == (2, *size)
    assert maps.dtype == np.float32
    assert maps.min() >= 0
    assert maps.max() <= 1
    assert all(one.max() in (0, 1) for one in maps)


@pytest.mark.long
def test_maps_with_features_last() -> None:
    torch.manual_seed(0)
    network, _ = classifier("swin_tiny_patch4_window7_224", classes=3, size=(17, 11))
    model, images = Normalized(network), random_images(2)
    layer = feature_layer(model, images[:1])
    maps = gradcam(model, layer, images, score, [0, 2])
    assert maps.shape == (2, 17, 11)
    assert maps.max() == 1


def test_each_image_has_its_own_map_whatever_its_neighbours() -> None:
    torch.manual_seed(0)
    network, _ = classifier("test_resnet", classes=3, size=(33, 20))
    model = Normalized(network)
    images = random_images(3, size=(33, 20))
    layer = feature_layer(model, images[:1])
    together = gradcam(model, layer, images, score, [0, 1, 2])
    alone = [gradcam(model, layer, images[i : i + 1], score, [i])[0] for i in range(3)]
    np.testing.assert_allclose(together, np.stack(alone), atol=1e-4)


def test_channels_last_gives_the_same() -> None:
    torch.manual_seed(0)
    network, _ = classifier("test_resnet", classes=3, size=(33, 20))
    model, images = Normalized(network), random_images(2, size=(33, 20))
    layer = feature_layer(model, images[:1])
    expected = gradcam(model, layer, images, score, [0, 1])
    model.to(memory_format=torch.channels_last)
    found = gradcam(model, layer, images.to(memory_format=torch.channels_last), score, [0, 1])
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_modes_and_gradients_are_left_alone_even_where_all_is_frozen_and_gradients_are_off() -> None:
    model = LeftHalf()
    model.requires_grad_(False)
    model.train()
    model.layer.eval()
    with torch.no_grad():
        first = gradcam(model, model.layer, random_images(2), score, [0, 1])
        second = gradcam(model, model.layer, random_images(2), score, [0, 1])
    np.testing.assert_array_equal(first, second)  # the dropout was off
    assert model.training
    assert model.dropout.training
    assert not model.layer.training
    model.requires_grad_(True)
    gradcam(model, model.layer, random_images(1), score, [0])
    assert all(p.grad is None for p in model.parameters())
    assert not model.layer._forward_hooks


def test_nothing_to_see_is_zero_not_nan() -> None:
    model = LeftHalf()
    nn.init.zeros_(model.layer.weight)
    nn.init.constant_(model.layer.bias, -1.0)
    found = gradcam(model, model.layer, random_images(1), score, [0])
    assert not found.any()


def test_none_is_none_and_uneven_lengths_are_refused() -> None:
    model = LeftHalf()
    assert gradcam(model, model.layer, random_images(0), score, []).shape == (0, 17, 11)
    with pytest.raises(ValueError, match="as many"):
        gradcam(model, model.layer, random_images(2), score, [0])


sides = st.integers(1, 60)


@given(sides, sides, sides, sides)
def test_a_map_goes_back_to_where_prepare_took_it_from(height: int, width: int, h: int, w: int) -> None:
    """The pixels of an image are their own coordinates: its prepared channels, taken for maps, must give the coordinates back."""
    spec = InputSpec(3, (h, w), "crop", MEAN, STD)
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([y * 4, x * 4, y * 0], 2).astype(np.uint8)
    prepared = prepare(pixels, spec).astype(np.float32)
    for channel in (0, 1):
        back = to_original(prepared[channel], (height, width), spec)
        assert back.shape == (height, width)
        seen = np.isfinite(back)
        assert seen.any()
        coarser = max(1.0, min(height / h, width / w))  # original pixels that one of the map stands for
        assert np.abs(back - pixels[:, :, channel])[seen].max() <= 4 * coarser + 2


def test_what_the_crop_cut_away_is_nan() -> None:
    spec = InputSpec(3, (8, 8), "crop", MEAN, STD)
    back = to_original(np.ones((8, 8), np.float32), (20, 10), spec)
    assert np.isnan(back[:5]).all()
    assert np.isnan(back[15:]).all()
    assert (back[5:15] == 1).all()
    exact = np.arange(64, dtype=np.float32).reshape(8, 8)
    np.testing.assert_array_equal(to_original(exact, (8, 8), spec), exact)


def test_a_map_of_another_input_is_refused() -> None:
    with pytest.raises(UserError, match="none of an input"):
        to_original(np.ones((8, 9), np.float32), (20, 10), InputSpec(3, (8, 8), "crop", MEAN, STD))
