"""The models that find objects and their masks, by name."""

from __future__ import annotations

from saccade.objects.models import Own

OWN = {"small_instances": Own((32, 64, 128, 192), (1, 1, 2, 1), 64, parameters=1_624_422, prototypes=32)}
