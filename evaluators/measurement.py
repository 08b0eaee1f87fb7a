"""The one row type of the project: every table, plot and gate is a view of Measurements."""

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Measurement:
    """One number with what decides its meaning.

    Attributes:
        suite: suite that made it, e.g. ``"ood"``.
        system: name of the system under test, e.g. ``"vaebm"``.
        dataset: data set the number is about, e.g. ``"svhn"`` (for OOD: the out-distribution; the in-distribution is in ``protocol``).
        metric: e.g. ``"auroc"``.
        value: the number; ``None`` when it could not be had, and ``note`` says why.
        low, high: 95 % interval, where there is one; ``low <= high``.
        n: number of images behind the number (for OOD: in-distribution + out-distribution images).
        seed: seed of the run.
        role: ``"headline"`` (the paper's number), ``"diagnostic"`` (a part or variant of it) or ``"control"`` (zero-parameter baseline).
        variant: which variant a diagnostic row shows, e.g. ``"log_p"``; empty for the headline.
        size: ``"mini"``, ``"small"``, ``"paper"`` or empty (no trained model, or not known).
        protocol: all that decides comparability (reference split, N, resize, estimator, steps ...). Rows whose protocols differ are never
            ranked against each other silently.
        provenance: hashes of weights and data, package versions, commit, device, dtype, seconds.
        origin: ``"measured"`` or ``"published"``.
        note: reason for an empty value, or a caveat that belongs beside the number.
    """

    suite: str
    system: str
    dataset: str
    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    seed: int | None = None
    role: str = "headline"
    variant: str = ""
    size: str = ""
    protocol: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    origin: str = "measured"
    note: str = ""

    def __post_init__(self) -> None:
        where = f"{self.system}/{self.dataset}/{self.metric}"
        for number in (self.value, self.low, self.high):
            if number is not None and not math.isfinite(number):
                raise ValueError(f"{where}: a measurement must be finite, found {number}")
        if self.value is None and not self.note:
            raise ValueError(f"{where}: an empty measurement must say why in `note`")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"{where}: an interval must not end before it begins, found {self.low} to {self.high}")

    @property
    def settings(self) -> dict[str, Any]:
        """The protocol without the time that was measured along: it is never the same twice and decides nothing."""
        return {key: value for key, value in self.protocol.items() if key != "seconds_per_image"}

    @property
    def weights(self) -> str:
        """Hash of the system's weights; empty where it has none or does not tell."""
        fingerprint = self.provenance.get("fingerprint")
        return str(fingerprint.get("weights") or "") if isinstance(fingerprint, dict) else ""

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "Measurement":
        """Read a dictionary written by :meth:`to_json`; unknown keys of newer versions are an error."""
        known = {f.name for f in fields(cls)}
        unknown = set(row) - known
        if unknown:
            raise ValueError(f"unknown measurement fields {sorted(unknown)}: written by a newer version?")
        return cls(**row)
