"""Random changes: nothing at 0, exact where they can be, and the same numbers for a position whatever its batch."""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from saccade.core.config import AugmentConfig, TrainConfig
from saccade.data import augment
from saccade.data.augment import Draws
from saccade.data.sample import Sample
from saccade.tasks.classification.augmentation import ClassificationAugment

COUNT = 64
SHAPES = [(3, 17, 11), (1, 17, 11), (3, 8, 8), (1, 1, 1), (3, 1, 5)]
FULL: dict[str, Any] = {
    "flip": 1.0, "crop": 0.3, "shift": 0.3, "scale": 0.4, "rotate": 90.0, "shear": 30.0,
    "color": 0.8, "hue": 0.5, "grey": 1.0, "erase": 1.0,
}  # fmt: skip
GEOMETRY = AugmentConfig(flip=0.5, crop=0.5, shift=0.1, scale=0.2, rotate=20, shear=5)


def pictures(shape: tuple[int, int, int] = (3, 17, 11), count: int = COUNT) -> torch.Tensor:
    pixels = np.random.Generator(np.random.Philox(1)).integers(0, 256, (count, *shape))
    return torch.from_numpy(pixels).float()


def everything(images: torch.Tensor, draws: Draws, config: AugmentConfig) -> torch.Tensor:
    return augment.erase(augment.recolor(augment.warp(images.clone(), draws, config), draws, config), draws, config)


def fixed(count: int = 1, value: float = 0.5, **changes: float) -> Draws:
    """Draws of one value (0.5: the middle, which moves nothing), but for those named."""
    values = np.full((count, len(augment._NAMES)), value)
    for name, number in changes.items():
        values[:, augment._NAMES.index(name)] = number
    return Draws(values)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", FULL)
def test_a_change_at_0_is_the_identity_whatever_the_draw(name: str, shape: tuple[int, int, int]) -> None:
    images, draws = pictures(shape), Draws.at(0, np.arange(COUNT))
    off = AugmentConfig(**{name: 1.0 if name == "crop" else 0.0})
    assert torch.equal(everything(images, draws, off), images)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", [name for name in FULL if name not in ("flip", "grey", "erase")])  # these happen or not
def test_a_change_of_next_to_nothing_is_next_to_the_identity(name: str, shape: tuple[int, int, int]) -> None:
    """Through the code of the change, unlike 0: a sampling or a matrix that is off by a bit shows here."""
    images, draws = pictures(shape), Draws.at(0, np.arange(COUNT))
    almost = AugmentConfig(**{name: 1 - 1e-6 if name == "crop" else 1e-6})
    middle = fixed(COUNT) if name == "crop" else draws  # a crop's draws of place and stretch do not go to 0 with it
    assert (everything(images, middle, almost) - images).abs().max() <= 1


@pytest.mark.parametrize("name", FULL)
def test_a_change_at_its_full_changes_colour_images(name: str) -> None:
    images, draws = pictures(), Draws.at(0, np.arange(COUNT))
    changed = everything(images, draws, AugmentConfig(**{name: FULL[name]}))
    assert changed.shape == images.shape and changed.dtype == torch.float32 and torch.isfinite(changed).all()
    assert ((changed - images).abs().amax((1, 2, 3)) > 2).float().mean() > 0.9


@pytest.mark.parametrize("shape", SHAPES)
def test_a_flip_is_exact_and_as_frequent_as_asked(shape: tuple[int, int, int]) -> None:
    images, draws = pictures(shape), Draws.at(0, np.arange(COUNT))
    assert torch.equal(augment.warp(images, draws, AugmentConfig(flip=1)), images.flip(3))
    half = augment.warp(images, draws, AugmentConfig(flip=0.5))
    flipped = draws["flip"] < 0.5
    assert 16 < flipped.sum() < 48
    assert all(torch.equal(half[i], images[i].flip(2) if flipped[i] else images[i]) for i in range(COUNT))


def test_a_flip_by_the_warp_equals_the_exact_one() -> None:
    images = pictures()
    warped = augment.warp(images, fixed(COUNT, flip=0.1), AugmentConfig(flip=0.5, rotate=10))
    assert (warped - images.flip(3)).abs().max() <= 1


def test_directions() -> None:
    """A bright spot goes where shift, rotation and zoom say: one pixel, a quarter turn, towards the rim."""
    image = torch.zeros(1, 1, 9, 9)
    image[0, 0, 2, 4] = 255
    down = augment.warp(image, fixed(shift_y=0.0, shift_x=0.5), AugmentConfig(shift=1 / 9))
    assert down[0, 0].argmax().item() == 3 * 9 + 4 and down.max() > 250
    turned = augment.warp(image, fixed(rotate=1.0), AugmentConfig(rotate=90))
    assert turned[0, 0].argmax().item() in (4 * 9 + 2, 4 * 9 + 6) and turned.max() > 250
    nearer = augment.warp(image, fixed(zoom=1.0), AugmentConfig(scale=0.5))
    assert nearer[0, 0].argmax().item() in (0 * 9 + 4, 1 * 9 + 4)


def test_a_turn_of_an_oblong_image_squashes_nothing() -> None:
    """A disc of an image twice as high as wide is as large after a quarter turn, and as round."""
    y, x = torch.meshgrid(torch.arange(40) - 19.5, torch.arange(20) - 9.5, indexing="ij")
    disc = (((y**2 + x**2) < 49).float() * 255)[None, None]
    turned = augment.warp(disc, fixed(rotate=1.0), AugmentConfig(rotate=90))
    assert (turned - disc).abs().max() <= 1


@given(
    seed=st.integers(0, 1000),
    shape=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    size=st.tuples(st.integers(1, 256), st.integers(1, 256)),
    smallest=st.floats(0.001, 1),
)
def test_crop_boxes_lie_inside_the_image(seed: int, shape: tuple[int, int], size: tuple[int, int], smallest: float) -> None:
    top, left, height, width = augment.crop_box(Draws.at(seed, np.array([0])), shape, size, smallest)
    assert all(type(number) is int for number in (top, left, height, width))
    assert height >= 1 and width >= 1 and top >= 0 and left >= 0 and top + height <= shape[0] and left + width <= shape[1]


def test_crop_boxes_have_the_area_and_aspect_asked_for() -> None:
    boxes = np.array([augment.crop_box(Draws.at(0, np.array([p])), (400, 400), (100, 100), 0.3) for p in range(300)])
    share, aspect = boxes[:, 2] * boxes[:, 3] / 400**2, boxes[:, 3] / boxes[:, 2]
    assert share.min() >= 0.29 and share.max() > 0.8 and aspect.min() > 0.74 and aspect.max() < 1.35
    assert 0.55 < np.mean(share) < 0.68 and aspect.min() < 0.8 and aspect.max() > 1.25
    centres = (boxes[:, :2] + boxes[:, 2:] / 2).mean(0)
    assert (abs(centres - 200) < 15).all()


def test_the_crop_of_everything_is_the_largest_box_in_the_middle() -> None:
    draws = Draws.at(3, np.array([5]))
    assert augment.crop_box(draws, (100, 300), (50, 50), 1.0) == (0, 100, 100, 100)
    assert augment.crop_box(draws, (17, 11), (17, 11), 1.0) == (0, 0, 17, 11)


@pytest.mark.parametrize("channels", [1, 3])
def test_crop_and_resize(channels: int) -> None:
    image = pictures((channels, 17, 11), 1)[0].permute(1, 2, 0).byte().numpy()
    plain = augment.crop_and_resize(image, (2, 3, 7, 5), (7, 5), flip=False)
    assert plain.dtype == np.uint8 and np.array_equal(plain, image[2:9, 3:8])
    assert np.array_equal(augment.crop_and_resize(image, (2, 3, 7, 5), (7, 5), flip=True), plain[:, ::-1])
    assert augment.crop_and_resize(image, (0, 0, 17, 11), (40, 3), flip=True).shape == (40, 3, channels)


def test_recolor_of_a_grey_image_keeps_it_grey() -> None:
    grey = pictures((1, 17, 11)).expand(-1, 3, -1, -1).contiguous()
    config = AugmentConfig(color=0.8, hue=0.5, grey=0.3)
    changed = augment.recolor(grey, Draws.at(0, np.arange(COUNT)), config)
    assert (changed - changed.mean(1, keepdim=True)).abs().max() < 0.1 and (changed - grey).abs().max() > 10
    one = augment.recolor(grey[:, :1].contiguous(), Draws.at(0, np.arange(COUNT)), config)
    assert (one - changed[:, :1]).abs().max() < 0.1


def test_hue_0_keeps_colours_and_hue_turns_them() -> None:
    draws = Draws.at(0, np.arange(COUNT))
    colour = torch.tensor([120.0, 60, 30])[None, :, None, None].expand(COUNT, 3, 4, 4).contiguous()
    kept = augment.recolor(colour, draws, AugmentConfig(color=0.3))
    hues = [colorsys.rgb_to_hsv(*pixel)[0] for pixel in kept[:, :, 0, 0].numpy() / 255]
    assert np.allclose(hues, colorsys.rgb_to_hsv(120, 60, 30)[0], atol=0.01)
    turned = augment.recolor(colour, draws, AugmentConfig(hue=0.3))
    luma = (turned * torch.tensor(augment.GREY)[None, :, None, None]).sum(1)
    assert luma.std() < 0.1 and turned[:, 0].std() > 10
    chroma = [np.hypot(*(augment._TO_YIQ[1:] @ pixel)) for pixel in turned[:, :, 0, 0].numpy()]
    assert np.ptp(chroma) < 0.1  # turned, not stretched
    assert (augment.recolor(colour, fixed(COUNT, hue=1.0), AugmentConfig(hue=0.5)) - colour).abs().max() > 50


def test_a_grey_copy_is_the_luma() -> None:
    images = pictures()
    grey = augment.recolor(images, fixed(COUNT), AugmentConfig(grey=1))
    luma = (images * torch.tensor(augment.GREY)[None, :, None, None]).sum(1, keepdim=True)
    assert (grey - luma).abs().max() < 0.1


def test_brightness_and_contrast() -> None:
    images = pictures((1, 17, 11))
    config = AugmentConfig(color=0.5)
    assert torch.allclose(augment.recolor(images, fixed(COUNT, brightness=1.0), config), images * 1.5, atol=1e-2)
    flat = augment.recolor(images, fixed(COUNT, contrast=0.0), config)
    assert torch.allclose(flat.mean((2, 3)), images.mean((2, 3)), atol=1e-2)
    assert torch.allclose(flat.std((2, 3)), images.std((2, 3)) / 2, atol=1e-2)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 40, 23)])
def test_erase_fills_one_box_of_2_to_25_percent_with_the_mean(shape: tuple[int, int, int]) -> None:
    images = pictures(shape) + 0.125
    before = images.clone()
    after = augment.erase(images, Draws.at(0, np.arange(COUNT)), AugmentConfig(erase=0.5))
    chosen = Draws.at(0, np.arange(COUNT))["erase"] < 0.5
    shares = []
    for i in range(COUNT):
        changed = (after[i] != before[i]).any(0)
        assert bool(changed.any()) == chosen[i]
        if chosen[i]:
            rows, columns = changed.any(1).nonzero()[:, 0], changed.any(0).nonzero()[:, 0]
            box = after[i, :, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert torch.allclose(box, before[i].mean((1, 2))[:, None, None].expand_as(box))
            shares.append(box[0].numel() / changed.numel())
    assert min(shares) >= 0.015 and max(shares) <= 0.27 and max(shares) > 0.18 and min(shares) < 0.07


def samples(positions: list[int], shape: tuple[int, int, int]) -> list[Sample]:
    pixels = pictures((shape[2], *shape[:2]), 40).permute(0, 2, 3, 1).byte().numpy()
    return [Sample(pixels[p % 40], p % 3, p % 40, f"{p}.png") for p in positions]


@pytest.mark.parametrize("shape", [(17, 11, 3), (17, 11, 1), (72, 80, 3)])
def test_an_image_is_changed_by_its_position_alone(shape: tuple[int, int, int]) -> None:
    config = TrainConfig(
        size=shape[:2], channels=3 if shape[2] == 3 else 1, seed=5,
        augment=AugmentConfig(flip=0.5, crop=0.5, shift=0.1, scale=0.2, rotate=20, shear=5, color=0.4, hue=0.1, grey=0.2, erase=0.5),
    )  # fmt: skip
    room = ClassificationAugment(config)
    alone = {p: room.collate(samples([p], shape), np.array([p])).images[0] for p in range(30, 46)}
    for positions in ([30, 31, 32, 33], [45, 30, 38], list(range(30, 46)), list(range(45, 29, -1))):
        batch = room.collate(samples(positions, shape), np.array(positions))
        for row, position in enumerate(positions):
            assert (batch.images[row].int() - alone[position].int()).abs().max() <= 1
    assert len({image.numpy().tobytes() for image in alone.values()}) == 16
    again = room.collate(samples([7, 7], shape), np.array([7, 7 + (1 << 40)])).images
    assert not torch.equal(again[0], again[1])


def test_draws_are_those_of_the_position() -> None:
    positions = np.array([9, 0, 1 << 40])
    draws = Draws.at(3, positions)
    assert draws.values.shape == (3, len(augment._NAMES)) and (draws.values >= 0).all() and (draws.values < 1).all()
    for row, position in enumerate(positions):
        from saccade.core import keys

        assert np.array_equal(draws.values[row], Draws.of(keys.generator(3, "augment", int(position))).values[0])
    assert Draws.at(3, np.array([], np.int64))["flip"].shape == (0,)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
@pytest.mark.parametrize("shape", [(3, 17, 11), (1, 8, 8)])
def test_pairs_are_symmetric_and_shares_are_what_is_left(kind: str, shape: tuple[int, int, int]) -> None:
    images = torch.rand((COUNT, *shape), generator=torch.Generator().manual_seed(0)) + torch.arange(COUNT)[:, None, None, None]
    before = images.clone()
    mixed, mixing = augment.mix_pairs(images, np.arange(COUNT), AugmentConfig(**{kind: 1.0}), 0)
    assert torch.equal(images, before)
    assert mixing.partner.tolist() == [p ^ 1 for p in range(COUNT)] and torch.equal(mixing.share[0::2], mixing.share[1::2])
    assert (mixing.share >= 0).all() and (mixing.share <= 1).all() and mixing.share.std() > 0.1
    for i in range(COUNT):
        share, other = float(mixing.share[i]), before[mixing.partner[i]]
        if kind == "mixup":
            assert torch.allclose(mixed[i], share * before[i] + (1 - share) * other, atol=1e-4)
        else:
            own = (mixed[i] == before[i]).all(0)
            assert own.float().mean().item() == pytest.approx(share, abs=1e-6)
            assert torch.equal(mixed[i][:, ~own], other[:, ~own])


def test_pairs_are_those_of_the_stream_whatever_the_batch() -> None:
    images, config = pictures(), AugmentConfig(mixup=0.5, cutmix=0.3)
    whole, mixing = augment.mix_pairs(images, np.arange(COUNT), config, 1)
    rows = np.array([9, 40, 8, 41, 3, 17])
    part, of_part = augment.mix_pairs(images[rows], rows, config, 1)
    assert torch.equal(part[:4], whole[rows[:4]]) and torch.equal(of_part.share[:4], mixing.share[rows[:4]])
    assert torch.equal(part[4:], images[rows[4:]]) and of_part.partner[4:].tolist() == [4, 5] and of_part.share[4:].tolist() == [1, 1]


def test_mixing_happens_as_often_as_asked_and_not_at_0() -> None:
    images = torch.arange(4000.0)[:, None, None, None].expand(-1, 1, 4, 4).contiguous()
    _, mixing = augment.mix_pairs(images, np.arange(4000), AugmentConfig(mixup=0.2, cutmix=0.3), 0)
    mixed = (mixing.partner != torch.arange(4000)).float().mean().item()
    assert abs(mixed - 0.5) < 0.05
    same, none = augment.mix_pairs(images, np.arange(4000), AugmentConfig(flip=1), 0)
    assert torch.equal(same, images) and torch.equal(none.partner, torch.arange(4000)) and (none.share == 1).all()


def see_through(count: int = COUNT, shape: tuple[int, int] = (17, 11)) -> torch.Tensor:
    """Premultiplied pictures `[N, 4, H, W]`, parts of them not seen at all."""
    pixels = pictures((4, *shape), count)
    alpha = (pixels[:, 3:] - 60).clamp_min(0)
    return torch.cat([pixels[:, :3] * (alpha / 255), alpha], 1)


def test_recolor_of_premultiplied_colours_is_that_of_their_own() -> None:
    config, draws, colour = AugmentConfig(color=0.5, hue=0.2, grey=0.2), Draws.at(0, np.arange(COUNT)), pictures()
    alone = augment.recolor(colour.clone(), draws, config).clamp(0, 255)
    for alpha in (1.0, 0.3):
        layer = torch.full_like(colour[:, :1], 255 * alpha)
        found = augment.recolor(torch.cat([colour * alpha, layer], 1), draws, config)
        assert torch.allclose(found[:, :3], alone * alpha, atol=1e-2) and torch.equal(found[:, 3:], layer)
    # What is not seen does not count: a border of nothing changes nothing inside.
    inside = torch.cat([colour, torch.full_like(colour[:, :1], 255)], 1)
    found = augment.recolor(torch.nn.functional.pad(inside, (3, 0, 1, 2)), draws, config)
    assert torch.allclose(found[:, :3, 1:-2, 3:], alone, atol=1e-2) and (found[:, :, :1] == 0).all() and (found[..., :3] == 0).all()


@pytest.mark.parametrize("name", FULL)
def test_premultiplied_pictures_stay_so(name: str) -> None:
    config = AugmentConfig(**{name: FULL[name]})
    images = everything(torch.cat([see_through(), torch.zeros(1, 4, 17, 11)]), Draws.at(0, np.arange(COUNT + 1)), config)
    assert (images[:, :3] <= images[:, 3:] + 1e-3).all() and (images >= -1e-3).all() and not images.isnan().any()


@pytest.mark.parametrize("seed", range(4))
def test_premultiplied_pictures_shrink_channel_by_channel(seed: int) -> None:
    pixels = see_through(1, (97, 81))[0].round().byte().permute(1, 2, 0).numpy()
    size = (5 + 9 * seed, 40)
    out = augment.shrink(pixels, size)
    assert out.shape[2] == 4 and (out[..., :3] <= out[..., 3:]).all()
    each = [augment.shrink(np.ascontiguousarray(pixels[..., c : c + 1]), size) for c in range(4)]
    assert np.abs(out.astype(int) - np.concatenate(each, 2)).max() <= 1
    cut = augment.crop_and_resize(pixels, (3, 5, 50, 40), (17, 11), flip=True)
    assert cut.shape == (17, 11, 4) and (cut[..., :3] <= cut[..., 3:]).all()


SIDES = st.tuples(st.integers(1, 90), st.integers(1, 90))


@given(SIDES, SIDES)
def test_shrink_covers_keeps_the_ratio_and_never_enlarges(source: tuple[int, int], size: tuple[int, int]) -> None:
    out = augment.shrink(noise(*source), size)
    height, width = out.shape[:2]
    assert min(source[0], size[0]) <= height <= source[0]
    assert min(source[1], size[1]) <= width <= source[1]
    scale = max(height / source[0], width / source[1])
    assert abs(height - source[0] * scale) <= 1
    assert abs(width - source[1] * scale) <= 1


def test_shrink_leaves_what_is_small_enough() -> None:
    pixels = noise(17, 11)
    assert augment.shrink(pixels, (17, 11)) is pixels and augment.shrink(pixels, (17, 5)) is pixels
    assert augment.shrink(noise(1, 60000), (512, 512)).shape == (1, 60000, 3)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("seed", range(8))
def test_shrink_is_pillows_resizing(seed: int, channels: int) -> None:
    """By the same antialiased filter, to a level or two of 255: above 40 dB by far."""
    height, width, h, w = (int(v) for v in np.random.default_rng(seed).integers((64, 64, 5, 5), (200, 200, 60, 60)))
    pixels = noise(height, width, channels, seed)
    out = augment.shrink(pixels, (h, w))
    image = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels).resize((out.shape[1], out.shape[0]), Image.Resampling.BILINEAR)
    assert np.abs(out.astype(int) - np.atleast_3d(np.asarray(image))).max() <= 2


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
