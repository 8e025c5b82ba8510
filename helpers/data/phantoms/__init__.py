"""Generated images of seven modalities with exact masks. Frozen: tests hold a checksum of each."""

from importlib import import_module

from helpers.data.phantoms.ct import ct
from helpers.data.phantoms.fundus import fundus
from helpers.data.phantoms.histology import histology
from helpers.data.phantoms.mr import mr
from helpers.data.phantoms.oct import oct
from helpers.data.phantoms.ultrasound import ultrasound
from helpers.data.phantoms.xray import xray

PHANTOMS = {generate.__name__: generate for generate in (fundus, oct, ultrasound, histology, mr, xray, ct)}
SCANNERS = {name: tuple(import_module(f"{__name__}.{name}").SCANNERS) for name in PHANTOMS}  # the first is the default
