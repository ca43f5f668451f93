"""The room of detection."""

from __future__ import annotations

from collections.abc import Sequence

from saccade.objects.room import Room
from saccade.task import ModelRow, counted
from saccade.tasks.detection import models
from saccade.tasks.detection.models import OWN, THEIRS
from saccade.tasks.detection.models.detr_rows import ROWS


class Detection(Room):
    """Objects of any number in boxes."""

    name = "detect"
    own = OWN
    theirs = THEIRS
    detrs = ROWS
    default = "small_detector"

    def models(self) -> Sequence[ModelRow]:
        """Ours, torchvision's and transformers'."""
        return counted(super().models(), models.__name__)
