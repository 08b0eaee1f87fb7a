"""What tables and plots know of a metric of samples: its printed name, which way is better, how its numbers are printed."""

from dataclasses import dataclass

from leaderboards.board import Column
from leaderboards.names import system_label
from vaebm.errors import UserError

INCEPTION = "Inception"
FASTER = "speedup_over_"  # and the name of a system


@dataclass(frozen=True)
class Metric:
    """A metric in print; ``magnitude``, ``decimals`` and ``higher_is_better`` as in :class:`leaderboards.board.Column`.

    Attributes:
        title: printed name.
        meaning: a sentence for a footnote, where the name alone would mislead.
    """

    title: str
    higher_is_better: bool | None = None
    magnitude: bool = False
    decimals: int | None = None
    meaning: str = ""


# In the order of columns.
METRICS = {
    "is": Metric("IS", True),
    "fid": Metric("FID", False),
    "fid_infinity": Metric("FID inf", False, meaning="FID inf: FID extrapolated to infinitely many samples."),
    "fd": Metric(
        "FD",
        False,
        magnitude=True,
        meaning="FD: Fréchet distance in these features; it is not FID and compares with none.",
    ),
    "fd_infinity": Metric(
        "FD inf", False, magnitude=True, meaning="FD inf: FD extrapolated to infinitely many samples."
    ),
    "sfid": Metric("sFID", False),
    "sfd": Metric("sFD", False, magnitude=True, meaning="sFD: sFID's distance, in spatial features of this network."),
    "kid": Metric("KID", False, magnitude=True),
    "kd": Metric("KD", False, magnitude=True, meaning="KD: kernel distance, KID's estimator, in these features."),
    "precision": Metric("Precision", True),
    "recall": Metric("Recall", True),
    "density": Metric("Density", True),
    "coverage": Metric("Coverage", True),
    "authenticity": Metric(
        "Authenticity",  # no direction: bad samples are authentic, too
        meaning="Authenticity: share of samples farther from their nearest training image than that one is from its own; low"
        " means copies.",
    ),
    "nearest_ratio": Metric(
        "NN ratio",
        meaning="NN ratio: distance to the nearest training image, over that of held-out images; 1 is as new"
        " as these, far below 1 are copies.",
    ),
    "log_likelihood": Metric("Log-likelihood (nats)", True),
    "modes": Metric("Modes", True, decimals=0),
    "kl": Metric("KL (nats)", False, magnitude=True),
    "classifier_confidence": Metric("Confidence"),
    "classifier_agreement": Metric(
        "Agreement", meaning="Agreement: share of real images whose digits the classifier names right."
    ),
    "high_quality": Metric(
        "High quality", True, meaning="High quality: share of samples within 3 standard deviations of a mode."
    ),
    "score_gap": Metric(
        "Score gap",
        magnitude=True,
        meaning="Score gap: mean of the system's own score over samples, less its mean over held-out images, in standard deviations of"
        " the latter.",
    ),
    "energy_gap": Metric(
        "E gap",
        magnitude=True,
        meaning="E gap: the same of the energy E alone; 0 would be that of the data's energies.",
    ),
    # Not called AUROC: no column of these compares with the AUROC of out-of-distribution tables.
    "auroc_test_over_samples": Metric(
        "P(test > sample)",
        meaning="P(test > sample): how often the score rates a held-out image above a sample.",
    ),
    "auroc_samples_over_outer": Metric(
        "P(sample > outer)",
        meaning="P(sample > outer): how often the score rates a sample above an image of the outer set.",
    ),
    "seconds_per_image": Metric("s/image", magnitude=True),
    "seconds_per_50_images": Metric("s per 50 images", False, magnitude=True),
    "network_evaluations": Metric(
        "Evaluations",  # no direction: networks differ in size
        magnitude=True,
        meaning="Evaluations, Gradients: passes forward and backward through networks behind an image, counted by hooks, all networks"
        " together; networks differ in size.",
    ),
    "gradient_evaluations": Metric("Gradients", magnitude=True),
    "peak_memory_gib": Metric(
        "Memory (GiB)",
        False,
        magnitude=True,
        meaning="Memory: what the images drawn together need at most, weights included.",
    ),
    "speedup_over_ncsn": Metric("Times faster than NCSN", True, magnitude=True),
}

# Of scores, where the columns of a table are data sets.
OF_SCORES = {"auroc": Metric("AUROC", True), "aupr": Metric("AUPR", True), "fpr95": Metric("FPR95", False)}

# Metrics of features: by these names alone they are in Inception's ...
IN_INCEPTION = {*("is", "fid", "fid_infinity", "sfid", "kid", "precision", "recall", "density", "coverage")}
IN_INCEPTION |= {"authenticity", "nearest_ratio"}
# ... and as "<metric>_<features>" in others; of two that begin alike the longer comes first.
IN_FEATURES = (
    "fd_infinity",
    "fd",
    "sfd",
    "kd",
    "is",
    "precision",
    "recall",
    "density",
    "coverage",
    "authenticity",
    "nearest_ratio",
)


def split_metric(name: str) -> tuple[str, str]:
    """Split ``"fd_infinity_cifar10net"`` into ``("fd_infinity", "cifar10net")``; ``"fid"`` is ``("fid", "Inception")``.

    Other metrics are in no features: ``("log_likelihood", "")``, ``("my_metric", "")``.

    Raises:
        UserError: ``fid_<features>``: a distance in other features must not be called FID.
    """
    if name in METRICS:
        return name, INCEPTION if name in IN_INCEPTION else ""
    if name.startswith("fid_"):
        raise UserError(
            f"metric {name!r}: found a FID in features of another network than Inception; needed fd_{name[4:]}"
        )
    for base in IN_FEATURES:
        if name.startswith(f"{base}_"):
            return base, name.removeprefix(f"{base}_")
    return name, ""


def metric_of(name: str) -> Metric:
    """Return what is known of a metric, whatever its features; an unknown one is printed as it is called."""
    if name not in METRICS and name.startswith(FASTER):
        return Metric(f"Times faster than {system_label(name.removeprefix(FASTER))}", True, magnitude=True)
    return METRICS.get(split_metric(name)[0], Metric(name, magnitude=True))


def score_or_sample_metric(name: str) -> Metric:
    """Return what is known of a metric of scores or of samples."""
    return OF_SCORES.get(name) or metric_of(name)


def metric_column(name: str, suffix: str = "") -> Column:
    """Return the column of a metric.

    Args:
        suffix: put behind the title: ``" (of 1000)"``.
    """
    metric = metric_of(name)
    return Column(name, metric.title + suffix, metric.magnitude, metric.decimals, metric.higher_is_better)


def in_order(names: set[str]) -> list[str]:
    """Sort names of metrics as their columns stand; unknown ones last, by name."""
    known = list(METRICS)
    place = lambda name: known.index(base) if (base := split_metric(name)[0]) in known else len(known)
    return sorted(names, key=lambda name: (place(name), name))
