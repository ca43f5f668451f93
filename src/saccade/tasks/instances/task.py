"""The room of instances."""

from __future__ import annotations

from saccade.objects.room import Room
from saccade.tasks.instances.models import OWN, THEIRS
from saccade.tasks.instances.models.detr_rows import ROWS


class Instances(Room):
    """Objects of any number in boxes, each with its mask."""

    name = "instances"
    own = OWN
    theirs = THEIRS
    detrs = ROWS
    default = "small_instances"
    changes = (*Room.changes, "paste")
