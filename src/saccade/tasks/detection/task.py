"""The room of detection."""

from __future__ import annotations

from saccade.objects.room import Room
from saccade.tasks.detection.models import OWN, THEIRS
from saccade.tasks.detection.models.detr_rows import ROWS


class Detection(Room):
    """Objects of any number in boxes."""

    name = "detect"
    own = OWN
    theirs = THEIRS
    detrs = ROWS
    default = "small_detector"
