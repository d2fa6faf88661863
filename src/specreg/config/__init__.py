"""A run as one validated tree of plain values: its sections, reading it from YAML and `key=value`, writing it."""

from specreg.config.reading import dump, parse, read_yaml, with_overrides
from specreg.config.sections import (
    ArmName,
    Config,
    ConfigError,
    DataSection,
    Name,
    SamplingSection,
    Section,
    SpectralConfig,
    TrainingConfig,
)

__all__ = [
    "ArmName",
    "Config",
    "ConfigError",
    "DataSection",
    "Name",
    "SamplingSection",
    "Section",
    "SpectralConfig",
    "TrainingConfig",
    "dump",
    "parse",
    "read_yaml",
    "with_overrides",
]
