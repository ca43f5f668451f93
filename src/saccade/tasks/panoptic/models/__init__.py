"""The models that tell things and stuff, by name."""

from __future__ import annotations

from saccade.objects.models import Own, Theirs
from saccade.queries.rows import ROWS

# That of `instances`, which tells the class of each pixel too.
OWN = {"small_panoptic": Own((32, 64, 128, 192), (1, 1, 2, 1), 64, parameters=1_657_014, prototypes=32)}
THEIRS = Theirs({}, ())  # torchvision has none
QUERIES = ROWS["panoptic"]  # Mask2Former and EoMT, whose queries answer with a class and a mask each, be it a thing or stuff
