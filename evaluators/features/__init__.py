"""Feature extractors: networks whose activations distances between sets of images are taken in."""

from evaluators.features.extractor import EXTRACTORS, Extractor, Options, load_extractor, metric_name

__all__ = ["EXTRACTORS", "Extractor", "Options", "load_extractor", "metric_name"]
