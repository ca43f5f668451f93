"""What cannot be done is refused in one line that says which module, why, and what would go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from editing.conftest import Network, make
from saccade.core.errors import UserError
from saccade.editing import planning
from saccade.editing.planning import OPERATIONS

Get = Callable[[str, str], Network]
SMALL = ("classify", "small_resnet_8px")
VIT, CONVNEXT = ("classify", "vit_tiny_patch16_224"), ("classify", "convnext_atto")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "an edit must be named"),
        ("widn layer2 1.5", "did you mean widen"),
        ("widen 'layer2 1.5", "quotes do not match"),
        ("widen ''  1.5", "empty word"),
        ("widen layer2", "widen PATH F"),
        ("widen layer2 much", "widen PATH F"),
        ("widen layer2 nan", "widen PATH F"),
        ("widen layer2 1", "more than 1"),
        ("widen layer2 1e3", "widen PATH F"),
        ("widen layer2 17", "at most 16"),
        ("prune layer2 1", "less than 1"),
        ("prune layer2 0", "more than 0"),
        ("deepen layer2 0", "deepen PATH +N"),
        ("deepen layer2 -1", "deepen PATH +N"),
        ("deepen layer2 +65", "deepen PATH +N"),
        ("set-classes", "set-classes +NEW"),
        ("set-classes +", "set-classes +NEW"),
        ("set-classes a", "set-classes +NEW"),
        ("set-classes =a +b", "set-classes +NEW"),
        ("set-input-channels 0", "1 (grey), 3 (RGB)"),
        ("set-input-channels 1025", "bands up to 1024"),
        ("set-input-channels three", "1 (grey), 3 (RGB)"),
        ("replace ReLU", "replace TYPE|PATH TYPE"),
        ("replace a b c d", "replace TYPE|PATH TYPE"),
        ("fuse a b", "fuse [PATH]"),
        ("replace ReLU SiLu", "did you mean SiLU"),
        ("insert-after layer4", "insert-after PATH MODULE"),
        ("insert-after layer4 SqueezExcite", "did you mean SqueezeExcite"),
        ("insert-after layer4 SqueezeExcite 0.1", "insert-after PATH MODULE"),
        ("insert-after layer4 Dropout 1", "insert-after PATH MODULE"),
        ("insert-after layer4 Dropout nan", "insert-after PATH MODULE"),
        ("insert-after layer4 Identity", "unknown module 'Identity'"),
        ("remove", "remove PATH"),
        ("set-drop", "set-drop P [PATH]"),
        ("set-drop 1", "set-drop P [PATH]"),
        ("set-drop x", "set-drop P [PATH]"),
        ("set-size 320", "set-size HxW"),
        ("grow-resolution 2", "must be 'grow-resolution'"),
        ("set-size 0x5", "set-size HxW"),
        ("set-size 16385x5", "set-size HxW"),
        ("add-lora layer4 8", "add-lora R PATH"),
        ("add-lora 0 layer4", "add-lora R PATH"),
        ("merge-lora a b", "merge-lora [PATH]"),
        ("factorize layer4 0.5", "factorize PATH RANK"),
        ("factorize layer4", "factorize PATH RANK"),
        ("remove a b", "remove PATH"),
        ("replace BatchNorm GroupNorm x", "GroupNorm [GROUPS]"),
        ("replace BatchNorm GroupNorm 0", "GroupNorm [GROUPS]"),
        ("replace ReLU SiLU 4", "GroupNorm [GROUPS]"),
    ],
)
def test_a_text_that_is_no_edit(text: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        planning.parse(text)
    assert said in str(caught.value) and (caught.value.where or text == "")


@pytest.mark.parametrize(
    ("which", "text", "said"),
    [
        (SMALL, "widen fetures.2 2", "did you mean features.2"),
        (SMALL, "widen conv1 2", "did you mean features.1.0.conv1"),
        (SMALL, "widen zzzzzz 2", "did you mean normalize, features"),
        (SMALL, "widen fea*.9 2", "the network has no module"),
        (SMALL, "widen head 2", "cannot widen head: the channels of head are what the network gives (widen features"),
        (SMALL, "widen features.0 2", "tied to features.1.0.conv2, outside of it (widen features.0.0 2 would go)"),
        (SMALL, "widen dropout 2", "no layers that give channels"),
        (SMALL, "deepen head +1", "gives no map [B, C, H, W] but 2x3 (deepen features +1 would go)"),
        (SMALL, "freeze *", "nothing would be left that learns (freeze features.0 would go)"),
        (SMALL, "unfreeze features.1", "features.1 learns already (all of the network learns)"),
        (SMALL, "fuse head", "fuse head: no batch normalisation stands right behind a layer (fuse features.0.1 would go)"),
        (SMALL, "set-classes -dog", "unknown class 'dog'"),
        (SMALL, "set-classes =b =c =b", "class 'b' would stand twice"),
        (SMALL, "set-classes dog=b", "unknown class 'dog'"),
        (SMALL, "set-classes -b -b", "unknown class 'b'"),
        (SMALL, "set-classes +b", "would stand twice"),
        (SMALL, "set-classes 'a cat=b'", "would stand twice"),
        (SMALL, "set-classes '-a cat' -b -c=d", "no class would be left (leave out -c=d)"),
        (SMALL, "set-input-channels 3", "takes 3 channels already (set-input-channels 1 or set-input-channels 4 would go)"),
        (SMALL, "replace GELU SiLU", "no module of type GELU"),
        (SMALL, "replace Relu SiLU", "unknown module or type of module 'Relu' (did you mean ReLU"),
        (SMALL, "replace GELU SiLU", "(replace features.0.2 SiLU would go)"),
        (SMALL, "replace features.0.0 SiLU", "SiLU is for an activation: features.0.0 is a Conv2d (replace features.0.2 SiLU would go)"),
        (SMALL, "replace ReLU GroupNorm", "features.0.2 is a ReLU (replace features.0.1 GroupNorm would go)"),
        (SMALL, "replace features.0 GroupNorm", "features.0 is a Sequential"),
        (SMALL, "replace features.0.1 GroupNorm 5", "cannot be 5 groups (replace features.0.1 GroupNorm 4 would go)"),
        (SMALL, "replace BatchNorm RMSNorm", "features.0.1 is a BatchNorm2d (it has no module that RMSNorm could stand for)"),
        (CONVNEXT, "replace LayerNorm RMSNorm", "stem.1 is a LayerNorm2d"),
        (SMALL, "insert-after head SqueezeExcite", "no map [B, C, H, W] but 2x3 (insert-after features SqueezeExcite would go)"),
        (SMALL, "insert-after head Dropout2d", "gives no map"),
        (
            VIT,
            "insert-after blocks SqueezeExcite",
            "no map [B, C, H, W] but 2x65x192 (insert-after patch_embed.proj SqueezeExcite would go)",
        ),
        (("segment", "small_unet"), "insert-after ups GELU", "does not run as one module (insert-after ups."),
        (("detect", "small_detector"), "insert-after head Dropout", "gives no single tensor"),
        (SMALL, "add-lora 8 head", "cannot add LoRA to head: its rank is 3 and not 8 (add-lora 8 features.0.0 would go)"),
        (SMALL, "add-lora 4 dropout", "it is a Dropout (add-lora 4 features.0.0 would go)"),
        (SMALL, "merge-lora", "no layer of the network has LoRA (add-lora adds some)"),
        (CONVNEXT, "add-lora 4 stages.0.blocks.0.conv_dw", "it is a Conv2d whose channels are not mixed"),
        (SMALL, "factorize head 4", "its rank is 3 and not 4"),
        (SMALL, "factorize features.0.1 4", "it is a BatchNorm2d (factorize features.0.0 4 would go)"),
        (SMALL, "factorize features 1000", "no layers that would be smaller at rank 1000 (factorize features.3.0.conv2 "),
        (SMALL, "add-lora 1000 features.1", "(add-lora "),
        (SMALL, "set-drop 0.2 features", "nothing drops in features (set-drop 0.2 dropout would go)"),
        (("segment", "small_unet"), "set-drop 0.2", "nothing drops in this network (insert-after PATH Dropout puts one in)"),
        (SMALL, "grow-resolution", "makes no images (set-size 34x22 takes larger ones)"),
        (SMALL, "set-size 17x11", "takes images of 17x11 already (set-size 34x22 would be another)"),
        (VIT, "set-size 34x41", "patches of 4x4 (set-size 36x44 would go)"),
        (SMALL, "remove features.2.0", "it takes 2x32x8x8 and gives 2x64x4x4 (remove features.1.0 would go)"),
        (SMALL, "remove normalize", "it takes uint8 2x3x8x8 and gives 2x3x8x8"),
        (("classify", "densenet121"), "remove features.denseblock1.denselayer2", "does not take one tensor to another"),
        (("segment", "small_unet"), "remove ups", "does not run as one module"),
        (VIT, "replace BatchNorm GroupNorm", "no module of type BatchNorm"),
        (CONVNEXT, "widen stages.1.blocks.0.conv_dw 2", "its channels are those of a layer before it"),
        (CONVNEXT, "widen stem.0 2", "takes all channels of stem.0 together"),
        (VIT, "widen patch_embed.proj 2", "takes all channels of patch_embed.proj together"),
        (VIT, "widen blocks.0.attn 2", "have fixed places (widen blocks.0.mlp.fc1 2 would go)"),
        (VIT, "deepen norm +1", "gives no map [B, C, H, W] but 2x65x192 (deepen "),
        (VIT, "fuse", "no batch normalisation"),
        (("detect", "small_detector"), "widen normalize 2", "no layers that give channels"),
    ],
)
def test_an_edit_that_does_not_fit_the_network(networks: Get, which: tuple[str, str], text: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        networks(*which).plan(text)
    assert said in str(caught.value), str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert caught.value.where and caught.value.fix
    if caught.value.fix.endswith(" would go"):
        for instead in caught.value.fix.removesuffix(" would go").split(" or "):
            if instead != "no module of this network":
                assert networks(*which).plan(instead).edit.text == instead


@pytest.mark.parametrize("text", ["deepen generator.upward +1", "insert-after generator.upward SqueezeExcite"])
def test_nothing_stands_behind_what_others_look_into(text: str) -> None:
    network = make("generate", "r3gan", (8, 8))
    with pytest.raises(UserError, match="other parts of the network read what it holds") as caught:
        network.plan(text)
    assert network.plan(caught.value.fix.removesuffix(" would go")).edit.promise == "exact"


def test_every_operation_shows_how_it_is_written() -> None:
    for name, operation in OPERATIONS.items():
        assert operation.usage.startswith(name) and operation.name == name and operation.__doc__


def test_a_class_may_have_any_name(networks: Get) -> None:
    network = networks(*SMALL)
    assert network.plan("set-classes c=d=e=f").card.classes == ("a cat", "b", "e=f")
    assert network.plan("set-classes =c=d =z '=a cat'").card.classes == ("c=d", "z", "a cat")
    assert network.plan("set-classes '+<b> \"x\"' ++-").card.classes == ("a cat", "b", "c=d", '<b> "x"', "+-")


def test_an_edit_after_which_the_network_would_not_run_is_refused_with_the_nearest_that_goes(
    networks: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, real, calls = networks(*SMALL), planning._tried, list[int]()

    def tried(*args: Any) -> Any:
        calls.append(1)
        if len(calls) <= 2:  # the module that was named, and the nearest to it
            raise planning._BrokenError("the edited network would not run: no")
        return real(*args)

    monkeypatch.setattr(planning, "_tried", tried)
    with pytest.raises(UserError, match="would not run: no") as caught:
        network.plan("widen features.2 1.5")
    assert caught.value.where == "widen features.2 1.5" and caught.value.fix.startswith("widen features.") and len(calls) == 3
    assert network.plan(caught.value.fix.removesuffix(" would go")).edit.promise == "exact"
    calls.clear()
    monkeypatch.setattr(planning, "NEAR", 1)
    with pytest.raises(UserError, match="this network cannot be edited there"):
        network.plan("widen features.2 1.5")
