"""The models that find objects and their masks, by name."""

from __future__ import annotations

from saccade.objects.models import LARGE, Own, Theirs
from saccade.queries.rows import ROWS

OWN = {"small_instances": Own((32, 64, 128, 192), (1, 1, 2, 1), 64, parameters=1_624_422, prototypes=32)}
# The average precision is that of masks.
THEIRS = Theirs(
    {
        "maskrcnn_resnet50_fpn": (44_401_393, 34.6, "maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth", LARGE),
        "maskrcnn_resnet50_fpn_v2": (46_359_409, 41.8, "maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth", LARGE),
    },
    ("maskrcnn",),
)
QUERIES = ROWS["instances"]  # Mask2Former and EoMT, whose queries answer with masks
