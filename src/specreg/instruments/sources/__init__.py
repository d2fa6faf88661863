"""Sets of samples of any kind behind one interface: `open_source` of a path is a `Source`, read by index."""

from specreg.instruments.sources.opening import open_source
from specreg.instruments.sources.protocol import Source

__all__ = ["Source", "open_source"]
