"""The models that detect, by name."""

from __future__ import annotations

from saccade.objects.models import Own

OWN = {"small_detector": Own((32, 64, 128, 192), (1, 1, 2, 1), 64, parameters=1_590_944)}
