"""Instruments: what data and samples hold at each frequency, measured with its uncertainty."""
