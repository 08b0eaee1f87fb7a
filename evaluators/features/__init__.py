"""Feature extractors: networks whose activations distances between sets of images are taken in."""
