"""The modality of images."""

from specreg.modalities.images.modality import Images

MODALITY = Images()
