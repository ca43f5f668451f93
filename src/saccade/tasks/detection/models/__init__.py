"""The models that detect, by name. torch is not imported here."""

from __future__ import annotations

from saccade.objects.models import LARGE, Own, Theirs

OWN = {"small_detector": Own((32, 64, 128, 192), (1, 1, 2, 1), 64, parameters=1_590_944)}

THEIRS = Theirs(
    {
        "fasterrcnn_mobilenet_v3_large_320_fpn": (19_386_354, 22.8, "fasterrcnn_mobilenet_v3_large_320_fpn-907ea3f9.pth", (320, 640)),
        "fasterrcnn_mobilenet_v3_large_fpn": (19_386_354, 32.8, "fasterrcnn_mobilenet_v3_large_fpn-fb6a3cc7.pth", LARGE),
        "fasterrcnn_resnet50_fpn": (41_755_286, 37.0, "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth", LARGE),
        "fasterrcnn_resnet50_fpn_v2": (43_712_278, 46.7, "fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth", LARGE),
        "fcos_resnet50_fpn": (32_269_600, 39.2, "fcos_resnet50_fpn_coco-99b0c9b7.pth", LARGE),
        "retinanet_resnet50_fpn": (34_014_999, 36.4, "retinanet_resnet50_fpn_coco-eeacb38b.pth", LARGE),
        "retinanet_resnet50_fpn_v2": (38_198_935, 41.5, "retinanet_resnet50_fpn_v2_coco-5905b1c5.pth", LARGE),
        "ssd300_vgg16": (35_641_826, 25.1, "ssd300_vgg16_coco-b556d3b4.pth", (300, 300)),
        "ssdlite320_mobilenet_v3_large": (3_440_060, 21.3, "ssdlite320_mobilenet_v3_large_coco-a79551df.pth", (320, 320)),
    },
    ("fasterrcnn", "fcos", "retinanet"),
)
