"""Instruments: the spectra of sets of samples, with their uncertainty and in words.

from specreg import instruments

result = instruments.spectra("real.zip", "samples/")
print(*instruments.sentences(result.sets[0], result), sep="\\n")
"""

from specreg.instruments.coefficients import Detrend as Detrend
from specreg.instruments.coefficients import Window as Window
from specreg.instruments.differences import Difference as Difference
from specreg.instruments.differences import difference as difference
from specreg.instruments.measuring import Settings as Settings
from specreg.instruments.measuring import Spectrum as Spectrum
from specreg.instruments.measuring import measure as measure
from specreg.instruments.paired import agreement as agreement
from specreg.instruments.result import Result as Result
from specreg.instruments.result import SetResult as SetResult
from specreg.instruments.sets import Spectra as Spectra
from specreg.instruments.sets import spectra as spectra
from specreg.instruments.sources import Source as Source
from specreg.instruments.sources import open_source as open_source
from specreg.instruments.sums import Value as Value
from specreg.instruments.words import sentences as sentences
