"""The networks of published figures: Inception of FID and LPIPS, against the field's own, with random weights."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from saccade.core.errors import UserError
from saccade.nn import fetching, pretrained
from saccade.tasks.generation import inception, lpips
from saccade.tasks.generation.inception import Inception, resized
from saccade.tasks.generation.lpips import KINDS, Lpips

pytestmark = pytest.mark.long


def images(seed: int, *shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def state() -> dict[str, torch.Tensor]:
    """Weights of the Inception network by the names of the published file, with its classifier."""
    generator, network = torch.Generator().manual_seed(0), Inception().network
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5, generator=generator)
        elif name.endswith("running_mean"):
            value.normal_(0, 0.1, generator=generator)
        elif value.ndim == 4:
            value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)
    kept = {name: value for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    return kept | {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}


@pytest.fixture
def brought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A file brought by hand, whose sum is taken for the published one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def bring(found: fetching.Published, content: Any) -> fetching.Published:
        found.place.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, found.place)
        return replace(found, sha256=hashlib.sha256(found.place.read_bytes()).hexdigest())

    return bring


@pytest.mark.processes
def test_inception_is_that_of_torch_fidelity(brought: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch_fidelity.feature_extractor_inceptionv3 as theirs

    weights = state()
    monkeypatch.setattr(theirs, "load_state_dict_from_url", lambda *args, **kwargs: weights)
    reference = theirs.FeatureExtractorInceptionV3("theirs", ["2048"])
    monkeypatch.setattr(inception, "WEIGHTS", brought(inception.WEIGHTS, weights))
    network = inception.pretrained(where="--features")
    seen = images(1, 2, 3, 17, 11)
    with torch.inference_mode():
        ours = network(seen)
        assert ours.shape == (2, 2048, 64)
        torch.testing.assert_close(ours.mean(2), reference(seen)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.processes
def test_other_weights_are_refused(brought: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    few = dict(list(state().items())[:10])
    monkeypatch.setattr(inception, "WEIGHTS", brought(inception.WEIGHTS, few))
    with pytest.raises(UserError, match="not those of this network"):
        inception.pretrained(where="--features")


@pytest.mark.parametrize("size", [(1, 1), (17, 11), (299, 299), (310, 40)])
def test_images_are_enlarged_as_tensorflow_did(size: tuple[int, int]) -> None:
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

    seen = images(2, 1, 3, *size).float()
    torch.testing.assert_close(resized(seen), interpolate_bilinear_2d_like_tensorflow1x(seen, size=(299, 299), align_corners=False))


@pytest.mark.processes
@pytest.mark.parametrize("name", KINDS)
def test_lpips_is_that_of_torchmetrics(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On random layers, with the published linear weights, which lie in that package, pickled."""
    from torchmetrics.functional.image import lpips as package
    from torchvision import models

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kind = KINDS[name]
    kind.linear.place.parent.mkdir(parents=True)
    kind.linear.place.write_bytes((Path(package.__file__).parent / "lpips_models" / f"{name}.pth").read_bytes())
    with torch.device("meta"):  # its classifier, of 100 million numbers, is not needed
        layers = models.get_model(kind.network, weights=None).features.to_empty(device="cpu")
    torch.manual_seed(0)
    for layer in layers.modules():
        if isinstance(layer, nn.Conv2d):
            layer.reset_parameters()
    photos = tmp_path / "photos.pth"
    torch.save({f"features.{key}": value for key, value in layers.state_dict().items()}, photos)
    fetch = fetching.fetch
    of_photos = pretrained.published(pretrained.torchvisions(f"torchvision/{kind.network}.IMAGENET1K_V1"))
    monkeypatch.setattr(fetching, "fetch", lambda found, *args, **words: photos if found == of_photos else fetch(found, *args, **words))
    ours = lpips.trained(name, (40, 40), where="--lpips")
    monkeypatch.setattr(package, "_get_tv_model_features", lambda *args: layers)
    reference: Any = package._LPIPS(pretrained=False, net=name, pnet_rand=True)  # type: ignore[arg-type]
    for number, weight in enumerate(ours.linear):
        reference.lins[number].model[-1].weight.data.copy_(weight)
        assert float(weight.detach().abs().sum()) > 0, "taken from the file"
    for size in ((kind.least, 40), (64, 48)):
        a, b = images(3, 2, 3, *size), images(4, 2, 3, *size)
        with torch.inference_mode():
            torch.testing.assert_close(ours(a, b), reference(a / 127.5 - 1, b / 127.5 - 1).flatten(), rtol=1e-5, atol=1e-6)
            assert ours(a, a).tolist() == [0.0, 0.0]


def test_images_too_small_for_lpips() -> None:
    with pytest.raises(UserError, match=r"31 pixels a side at least for alex, have 28x40.*--lpips vgg"):
        lpips.trained("alex", (28, 40), where="--lpips")
    with pytest.raises(UserError, match="leave it out"):
        lpips.trained("alex", (8, 40), where="--lpips")
    with pytest.raises(RuntimeError):  # what the refusal spares its user
        Lpips(KINDS["vgg"])(images(5, 1, 3, 15, 20), images(6, 1, 3, 15, 20))


def test_grey_and_transparent_images_are_seen_in_colours() -> None:
    from saccade.api.judging import Features, _colours

    class Means(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            assert images.shape[1] == 3 and len(images) <= 2
            return images.float().flatten(2)

    on = Features("means", _colours(Means(), "cpu", 2))
    grey = np.full((3, 4, 5, 1), 7, np.uint8)
    assert on.of(grey).tolist() == [[7.0, 7.0, 7.0]] * 3
    clear = np.zeros((3, 4, 5, 4), np.uint8)
    assert on.of(clear).tolist() == [[255.0] * 3] * 3
