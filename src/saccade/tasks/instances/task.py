"""The room of instances."""

from __future__ import annotations

from saccade.objects.room import Room
from saccade.tasks.instances.models import OWN


class Instances(Room):
    """Objects of any number in boxes, each with its mask."""

    name = "instances"
    own = OWN
    default = "small_instances"
    changes = (*Room.changes, "paste")
