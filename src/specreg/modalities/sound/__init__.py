"""The modality of sound."""

from specreg.modalities.sound.modality import Sound

MODALITY = Sound()
