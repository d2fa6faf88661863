"""What a notebook shows of a folder: its own pixels, and figures with a legend."""

import io
import re
from base64 import b64decode

import numpy as np
import pytest
from PIL import Image

from report_folders import MAGENTA, NASTY, write_comparison
from specreg.report import show


def test_a_comparison_shows_real_images_samples_and_spectra(tmp_path):
    html = show(write_comparison(tmp_path))._repr_html_()
    pixels = [
        np.asarray(Image.open(io.BytesIO(b64decode(found))))
        for found in re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    ]
    assert len(pixels) > 1
    assert (pixels[0] == MAGENTA).all(-1).sum() == 1  # the real images come first
    assert html.index("real boards") < html.index("baseline")
    assert html.count("data:image/svg+xml") == 2
    assert NASTY not in html
    assert "<script" not in html


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="neither"):
        show(tmp_path)
