"""Metrics of samples: spectra, feature distances, vocoding metrics, predicted opinion scores."""
