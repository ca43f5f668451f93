"""The room of detection."""

from __future__ import annotations

from saccade.objects.room import Room
from saccade.tasks.detection.models import OWN


class Detection(Room):
    """Objects of any number in boxes."""

    name = "detect"
    own = OWN
    default = "small_detector"
