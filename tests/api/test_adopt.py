"""`adopt`: weights of other people become models; the published figures of real ones are reproduced; what does not fit is refused."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import saccade
from saccade import UserError
from saccade.core.progress import Silent
from saccade.tasks.classification.models.classic import CifarResNet, LeNet5

pytestmark = pytest.mark.processes
CIFAR = "airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck"
MANY = ",".join(f"a class {number}" for number in range(99))  # a text that is no path
HERE = Silent()


@pytest.fixture(scope="session")
def unpacked(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    subprocess.run([sys.executable, str(shared_data / "unpack.py"), str(folder), "cifar10"], check=True, capture_output=True)
    return folder


@pytest.mark.long
@pytest.mark.parametrize(
    ("file", "model", "accuracy"),
    [("resnet20-12fca82f.th", "cifar_resnet20", 0.915), ("resnet32-d509ac18.th", "cifar_resnet32", 0.928)],
)
def test_published_weights_of_cifar(shared_data: Path, unpacked: Path, tmp_path: Path, file: str, model: str, accuracy: float) -> None:
    """As measured with the authors' own code on these 1,000 images (published on 10,000: 0.9173, 0.9263)."""
    out = tmp_path / "m.safetensors"
    told = saccade.adopt(shared_data / "weights/akamaster-cifar10" / file, model=model, out=out, classes=CIFAR, license="bsd-2-clause")
    assert (told.without, told.inside, told.ordered, told.unexpected) == ("module.", "state_dict", 0, ())
    opened = saccade.load(out, device="cpu")
    assert opened.evaluate(unpacked / "cifar10", split="test", progress=HERE).to_dict()["metrics"]["accuracy"] == pytest.approx(
        accuracy, abs=1e-9
    )
    (row,) = opened.card.licenses
    assert row["license"] == "bsd-2-clause" and row["weights"] == file and row["sha256"].startswith(file.partition("-")[2][:8])
    (entry,) = saccade.models(out)
    assert (entry.license, entry.task) == ("bsd-2-clause", "classify")


@pytest.mark.long
def test_published_weights_of_lenet(shared_data: Path, tmp_path: Path) -> None:
    """0.9908 of the 10,000 test images of MNIST, the classes by number as none are given."""
    out = tmp_path / "m.safetensors"
    (file,) = (shared_data / "weights/csinva-mnist").glob("lenet*.pth")
    told = saccade.adopt(file, model="lenet5", out=out, mean=[0], std=[1])
    assert told.classes == tuple("0123456789") and told.loaded == 10
    opened = saccade.load(out, device="cpu")
    files = {name: shared_data / f"mnist-idx/t10k-{name}-ubyte.gz" for name in ("images-idx3", "labels-idx1")}
    raw = {name: gzip.decompress(path.read_bytes()) for name, path in files.items()}
    images = np.frombuffer(raw["images-idx3"], np.uint8, offset=16).reshape(-1, 1, 28, 28)
    labels = np.frombuffer(raw["labels-idx1"], np.uint8, offset=8)
    session = opened.session()
    answers = np.concatenate([session.run(part)["probabilities"].argmax(1) for part in np.split(images, 100)])
    assert (answers == labels).mean() == pytest.approx(0.9908, abs=1e-9)


def saved(module: torch.nn.Module, path: Path) -> Path:
    torch.save(module.state_dict(), path)
    return path


@pytest.mark.long
def test_names_of_another_code_are_matched_by_order(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = torch.nn.Sequential(*[part for part in LeNet5(4).modules() if isinstance(part, torch.nn.Conv2d | torch.nn.Linear)])
    told = saccade.adopt(saved(theirs, tmp_path / "x.pt"), model="lenet5", out=tmp_path / "m.safetensors", classes=["a", "b", "c", "d"])
    assert (told.loaded, told.ordered) == (10, 10)


@pytest.mark.long
def test_what_is_refused_writes_nothing(tmp_path: Path) -> None:
    file = saved(CifarResNet(4), tmp_path / "x.pt")
    out = tmp_path / "m.safetensors"
    for request, words in (
        ({"model": "cifar_resnet32"}, "of this network, must be 100%"),
        ({"model": "cifar_resnet2O"}, "did you mean .*cifar_resnet20"),
        ({"model": "cifar_resnet20", "classes": MANY}, r"or type \(network.linear.weight: is 4x64, must be 99x64"),
        ({"model": "cifar_resnet20", "classes": "a,b,a,c"}, "different names"),
        ({"model": "cifar_resnet20", "classes": tmp_path / "gone.txt"}, "gone.txt: no such file"),
        ({"model": "cifar_resnet20", "classes": file}, "must be text of a name a line"),
        ({"model": "cifar_resnet20", "mean": [0.5]}, "each of 3 channels"),
        ({"model": "cifar_resnet20", "std": [0, 1, 1]}, "std above 0"),
        ({"model": "cifar_resnet20", "out": tmp_path / "m.pt"}, "NAME.safetensors"),
    ):
        with pytest.raises(UserError, match=words):
            saccade.adopt(file, **{"out": out, **request})  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no such file"):
        saccade.adopt(tmp_path / "none.pt", model="lenet5", out=out)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["x.pt"]


@pytest.mark.long
def test_the_command_and_pixels_of_caffe(tmp_path: Path) -> None:
    """Means in 0..255 with blue first: the same answers as the network gives to such pixels."""
    torch.manual_seed(0)
    network = CifarResNet(3).eval()
    file = saved(network, tmp_path / "x.pth")
    (tmp_path / "names.txt").write_text("cat\ndog\n owl\n", encoding="utf-8")
    out = tmp_path / "m.safetensors"
    words = f"adopt {file} --model cifar_resnet20 --out {out} --classes {tmp_path}/names.txt --mean 104,117,123 --std 1,1,1 --bgr --json"
    done = subprocess.run([sys.executable, "-m", "saccade", *words.split()], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["classes"] == ["cat", "dog", "owl"]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    given = torch.from_numpy(pixels[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32)) - torch.tensor([104.0, 117.0, 123.0]).view(
        1, 3, 1, 1
    )
    with torch.no_grad():
        wanted = network(given).softmax(1).numpy()
    answers = saccade.load(out, device="cpu").session().run(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))["probabilities"]
    np.testing.assert_allclose(answers, wanted, atol=1e-4)


@pytest.mark.long
def test_training_goes_on_from_pickled_weights(tiny_folder: Path, tmp_path: Path) -> None:
    theirs = CifarResNet(10)
    file = saved(theirs, tmp_path / "x.pt")
    run = saccade.train(
        tiny_folder, model="cifar_resnet20", weights=file, out=tmp_path / "r", epochs=1, set={"lr": 0.0, "ema": 0.0}, progress=HERE
    )
    module = saccade.load(run.model, device="cpu").module
    assert torch.equal(module.network.conv1.weight, theirs.conv1.weight), "at a rate of zero what was taken stays as it was"
    (row,) = saccade.load(run.model, device="cpu").card.licenses
    assert row["license"] == "unknown" and row["weights"] == "x.pt"
    with pytest.raises(UserError, match="weights_share"):
        saccade.train(tiny_folder, model="small_resnet_8px", weights=file, out=tmp_path / "s", epochs=1, progress=HERE)
    assert not (tmp_path / "s").exists()


def test_which_of_several_tasks(tmp_path: Path) -> None:
    """Networks of one name may be there for several; weights do not say for which."""
    file, out = saved(torch.nn.Linear(2, 2), tmp_path / "x.pt"), tmp_path / "m.safetensors"
    for request, words in (
        ({"model": "eomt_large"}, "is a network for instances, panoptic and segment .say which with --task"),
        ({"model": "eomt_large", "task": "panoptic"}, "which of their classes are things and which stuff"),
        ({"model": "small_panoptic"}, "which of their classes are things and which stuff"),
        ({"model": "eomt_large", "task": "detect"}, "unknown model 'eomt_large'"),
        ({"model": "lenet5", "task": "classifi"}, "unknown task 'classifi'"),
    ):
        with pytest.raises(UserError, match=words):
            saccade.adopt(file, out=out, **request)  # type: ignore[arg-type]
    assert not out.exists()
