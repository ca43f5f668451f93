"""DEIMv2 (Huang et al. 2025, "Real-Time Object Detection Meets DINOv3") as its authors have it, and the names in their files.

transformers builds it with a layer before the choice of queries, a normalisation behind the smaller backbones and activations in its heads
that the authors' network has not (github.com/Intellindust-AI-Lab/DEIMv2: engine/deim/deim_decoder.py, engine/backbone/vit_tiny.py). With
their weights it would answer wrongly, so these are taken out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.core.modelfile import Buffer
from saccade.nn import hub
from saccade.objects.detr import Detr
from saccade.objects.detr_rows import Row

# The authors' names -> transformers', one after the other.
NAMES = (
    # the networks: HGNetV2, DINOv3, and the convolutions beside that
    (r"^backbone\.stem\.", "conv_encoder.model.embedder."),
    (r"^backbone\.stages\.", "conv_encoder.model.encoder.stages."),
    (r"^(conv_encoder\.model\..*)\.conv\.weight$", r"\1.convolution.weight"),
    (r"^(conv_encoder\.model\..*)\.bn\.", r"\1.normalization."),
    (r"^backbone\.dinov3\.(?:_model\.)?", "conv_encoder.backbone."),
    (r"backbone\.patch_embed\.proj\.", "backbone.embeddings.patch_embeddings."),
    (r"backbone\.storage_tokens", "backbone.embeddings.register_tokens"),
    (r"backbone\.cls_token", "backbone.embeddings.cls_token"),
    (r"backbone\.blocks\.", "backbone.model.layer."),
    (r"\.attn\.proj\.", ".attention.o_proj."),
    (r"\.attn\.qkv\.", ".attention.qkv."),
    (r"\.ls([12])\.gamma", r".layer_scale\1.lambda1"),
    (r"(layer\.\d+\.mlp)\.(?:fc1|w2)\.", r"\1.up_proj."),
    (r"(layer\.\d+\.mlp)\.(?:fc2|w3)\.", r"\1.down_proj."),
    (r"(layer\.\d+\.mlp)\.w1\.", r"\1.gate_proj."),
    (r"^backbone\.sta\.stem\.", "backbone.sta.stem_conv."),
    (r"^backbone\.sta\.(stem_conv\.0|conv2\.0|conv[34]\.1)\.", r"backbone.sta.\1.conv."),
    (r"^backbone\.sta\.(stem_conv\.1|conv2\.1|conv[34]\.2)\.", r"backbone.sta.\1.norm."),
    (r"^backbone\.sta\.(\w+)\.\d\.", r"conv_encoder.spatial_tuning_adapter.\1."),
    (r"^backbone\.convs\.(\d)\.", r"conv_encoder.fusion_proj.\1.conv."),
    (r"^backbone\.norms\.(\d)\.", r"conv_encoder.fusion_proj.\1.norm."),
    # the encoder
    (r"^encoder\.encoder\.(\d+)\.", r"encoder.aifi.\1."),
    (r"(aifi\.\d+\.layers\.\d+)\.linear([12])\.", lambda found: f"{found[1]}.mlp.layers.{int(found[2]) - 1}."),
    (r"(aifi\.\d+\.layers\.\d+)\.norm1\.", r"\1.self_attn_layer_norm."),
    (r"(aifi\.\d+\.layers\.\d+)\.norm2\.", r"\1.final_layer_norm."),
    (r"(_blocks?(?:\.\d+)?)\.cv1\.", r"\1.conv1."),
    (r"(_blocks?(?:\.\d+)?)\.cv4\.", r"\1.conv2."),
    (r"(_blocks?(?:\.\d+)?)\.cv([23])\.0\.", lambda found: f"{found[1]}.csp_rep{int(found[2]) - 1}."),
    (r"(_blocks?(?:\.\d+)?)\.cv([23])\.1\.", lambda found: f"{found[1]}.csp_rep{int(found[2]) - 1}.conv2."),
    (r"(downsample_convs\.\d+)\.0\.cv", r"\1.conv"),
    (r"\.down_sample([12])\.1\.", r".down_conv\1.conv."),
    (r"\.down_sample([12])\.2\.", r".down_conv\1.norm."),
    (r"\.bi_fusion\.cv\.", ".bi_fusion_conv."),
    # the decoder
    (r"^decoder\.(enc_score_head|enc_bbox_head|denoising_class_embed)\.", r"\1."),
    (r"^decoder\.decoder\.", "decoder."),
    (r"^decoder\.dec_score_head\.", "decoder.class_embed."),
    (r"^decoder\.dec_bbox_head\.", "decoder.bbox_embed."),
    (r"^decoder\.input_proj\.(\d)\.", r"decoder_input_proj.\1."),
    (r"(decoder\.layers\.\d+)\.cross_attn\.", r"\1.encoder_attn."),
    (r"(decoder\.layers\.\d+)\.norm1\.scale", r"\1.self_attn_layer_norm.weight"),
    (r"(decoder\.layers\.\d+)\.norm2\.scale", r"\1.encoder_attn_layer_norm.weight"),
    (r"(decoder\.layers\.\d+)\.norm3\.scale", r"\1.final_layer_norm.weight"),
    (r"gateway\.norm\.scale", "gateway.norm.weight"),
    (r"\.swish_ffn\.", ".mlp."),
    (r"(decoder\.layers\.\d+\.mlp)\.w3\.", r"\1.down_proj."),
    (r"self_attn\.out_proj\.", "self_attn.o_proj."),
)
FUSED = {  # layers of the authors' that are several in transformers
    "attention.qkv.": ("attention.q_proj.", "attention.k_proj.", "attention.v_proj."),
    "self_attn.in_proj_": ("self_attn.q_proj.", "self_attn.k_proj.", "self_attn.v_proj."),
    "mlp.w12.": ("mlp.gate_proj.", "mlp.up_proj."),
}
# Of their files: what follows from the sizes, what is not learned, and what is only for learning DINOv3.
UNUSED = ("decoder.anchors", "decoder.valid_mask", "decoder.reg_scale", "rope_embed.periods", "bias_mask", "mask_token")


class Deimv2(Detr):
    """See `Detr`."""

    def _network(self, row: Row, classes: int) -> Any:
        network = super()._network(row, classes)
        model = network.model
        model.enc_output = nn.Identity()
        _fixed(model.decoder, "reg_scale")
        if row.backbone["model_type"] == "dinov3_vit":
            _as_published(model.conv_encoder.backbone, taught=row.backbone["num_register_tokens"] == 0)
            model.conv_encoder.forward = MethodType(_fused, model.conv_encoder)
        for module in network.modules():
            if type(module).__name__ == "Deimv2MLP" and isinstance(module.act, nn.ReLU):
                module.act = nn.SiLU()
        return network

    @property
    def finest(self) -> nn.Module:
        """The module that gives the finest map, `[B, F, h, w]`."""
        encoder = self.network.model.encoder
        found: nn.Module = encoder.fpn_block if hasattr(encoder, "fpn_block") else encoder.fpn_blocks[-1]
        return found

    def translated(self, tensors: Mapping[str, Buffer]) -> dict[str, Buffer]:
        """Tensors of a file of the authors', or of transformers', by their names here."""
        if any(name.startswith("model.") for name in tensors):
            return {f"network.{name}": tensor for name, tensor in tensors.items() if "mask_token" not in name}
        # Of the map that the encoder begins with, transformers has the first layer elsewhere, but for the smallest networks.
        first = "encoder." if hasattr(self.network.model.encoder, "fpn_block") else "conv_encoder.encoder_"
        found = {}
        for old, tensor in tensors.items():
            name = re.sub(r"^encoder\.input_proj\.", f"{first}input_proj.", old)
            for pattern, new in NAMES:
                name = re.sub(pattern, new, name)
            if not any(part in old for part in UNUSED):
                found[f"network.model.{name}"] = tensor
        return hub.parted(found, FUSED)


def _fused(self: Any, images: Tensor) -> list[Tensor]:
    """Maps of a DINOv3, at the sizes of those of the convolutions beside it, and both together. As transformers has it for sides that are
    multiples of 32; it reckons the sizes as plain numbers, so that an export would be of one size."""
    maps, details = self.backbone(images).feature_maps, self.spatial_tuning_adapter(images)
    sized = [F.interpolate(one, detail.shape[2:], mode="bilinear") for one, detail in zip(maps, details, strict=True)]
    return [layer(torch.cat(both, 1)) for layer, *both in zip(self.fusion_proj, sized, details, strict=True)]


def _as_published(backbone: Any, *, taught: bool) -> None:
    """Take out of a DINOv3 what is only for learning it, and of one that is `taught` by it what that has not: registers, scales of layers
    and a last normalisation."""
    embeddings = backbone.embeddings
    embeddings.mask_token = None
    if not taught:
        return
    _fixed(embeddings, "register_tokens")
    backbone.norm = nn.Identity()
    for layer in backbone.model.layer:
        layer.layer_scale1, layer.layer_scale2 = nn.Identity(), nn.Identity()


def _fixed(module: nn.Module, name: str) -> None:
    """Make a parameter that is not learned a part of the configuration alone."""
    value = getattr(module, name).detach()
    delattr(module, name)
    module.register_buffer(name, value, persistent=False)
