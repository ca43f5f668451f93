"""The table of models: equal to the installed timm, and quick to read."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from fnmatch import fnmatch
from pathlib import Path

import pytest

from saccade.core.errors import UserError
from saccade.tasks.classification import models

TABLE = Path(models.__file__).with_name("table.json")


def test_the_table_is_that_of_the_installed_timm() -> None:
    import timm

    header = json.loads(TABLE.read_text())["header"]
    if header["timm"] != timm.__version__:
        pytest.skip(f"the table is of timm {header['timm']}, installed is {timm.__version__}: run scripts/model_table.py")
    names = [row.name for row in models.rows() if row.source == "timm"]
    assert names == sorted(set(timm.list_models()) - set(header["others"]))


def test_the_table_names_all_of_the_installed_torchvision() -> None:
    import torchvision
    from torchvision.models import list_models

    names = [row.name.removeprefix("torchvision/") for row in models.rows() if row.source == "torchvision"]
    assert sorted(names) == sorted(list_models(module=torchvision.models))


QUICK = ("resnet18", "vgg11_bn", "densenet121", "convnext_atto", "torchvision/resnet18", "torchvision/vit_b_32", "torchvision/mnasnet0_5")
FAMILIES = ("resnet*", "vgg*", "densenet*", "torchvision/*")


def counted_again(name: str) -> None:
    spec = importlib.util.spec_from_file_location("model_table", Path(__file__).parents[3] / "scripts/model_table.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    row = models.find(name)
    of_torchvision = row.source == "torchvision"
    found = script.of_torchvision(name.removeprefix("torchvision/")) if of_torchvision else script.of_timm(name, {})
    assert (found["parameters"], found["flops"], tuple(found["size"])) == (row.parameters, row.flops, row.size)
    assert found["license"] == row.license
    if of_torchvision:
        assert (found["metric"], found["file"]) == (row.metric, row.weights)


@pytest.mark.long
@pytest.mark.parametrize("name", QUICK)
def test_the_installed_libraries_count_the_same(name: str) -> None:
    counted_again(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [row.name for row in models.rows() if any(fnmatch(row.name, one) for one in FAMILIES)])
def test_all_of_the_oldest_families_count_the_same(name: str) -> None:
    counted_again(name)


@pytest.mark.parametrize(("name", "parameters"), [("resnet18", 11_689_512), ("vgg11_bn", 132_868_840), ("densenet121", 7_978_856)])
def test_sizes_are_the_published_ones(name: str, parameters: int) -> None:
    assert models.find(name).parameters == parameters


def test_our_own_come_first_and_names_are_unique() -> None:
    rows = models.rows()
    assert rows[: len(models.OWN)] == models.OWN
    assert len({row.name for row in rows}) == len(rows)


def test_tags_and_licences() -> None:
    assert models.find("resnet18.a1_in1k").name == "resnet18"
    assert models.find("resnet18").license == "apache-2.0"
    assert all(row.license or row.metric is None for row in models.rows())


@pytest.mark.parametrize(("typed", "meant"), [("resnt18", "resnet18"), ("VGG_16", "vgg16"), ("densenet12", "densenet121")])
def test_the_nearest_names_are_suggested(typed: str, meant: str) -> None:
    with pytest.raises(UserError) as caught:
        models.find(typed)
    assert meant in caught.value.fix


@pytest.mark.processes
def test_a_typo_is_answered_in_under_a_second_without_torch() -> None:
    code = """
import sys
from saccade.core.errors import UserError
from saccade.tasks.classification import models
try:
    models.find("resnt18")
except UserError as error:
    print(error)
assert not {"torch", "timm"} & set(sys.modules)
"""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "did you mean resnet18" in done.stdout
    assert time.perf_counter() - began < 3  # measured 0.3 s; the suite may share its cores
