"""Fields of science on square grids: floats in data units, a few variables, trained and drawn as images are."""

from specreg.modalities.fields.modality import Fields

MODALITY = Fields()
