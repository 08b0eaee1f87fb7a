"""Synthetic rows of the trade-off suite, as it makes them."""

from typing import Any

from evaluators.measurement import Measurement

# VAEBM's settings: (FD, seconds per image); the own recipe makes 4 steps.
VAEBM = {
    "steps=0": (20.0, 1.0),
    "steps=4": (10.0, 5.0),
    "steps=8": (15.0, 9.0),
    "steps=4, step_size=x0.5": (12.0, 5.0),
    "steps=8, step_size=x0.5": (9.0, 9.0),
    "steps=4, temperature=0.7": (18.0, 5.0),
}
FEATURES = {"features": "cifar10net", "reference": "cifar10 train", "interval": "delete-group jackknife, 95 %"}
SCORES = {"score": "log p(x) - E(x)", "estimator": "ELBO"}
DELONG = "DeLong, logit scale, 95 %"


def tradeoff_rows() -> list[Measurement]:
    """VAEBM at six settings, NVAE at its own and one that it does not have, and the controls."""
    rows = []
    for variant, (fd, seconds) in VAEBM.items():
        steps = int(variant.partition(",")[0].removeprefix("steps="))
        recipe = {
            "steps": steps,
            "step_size": 5e-4 if "x0.5" in variant else 1e-3,
            "temperature": 0.7 if "0.7" in variant else 1.0,
        }
        about = {"sampling": recipe, "steps": steps, "seconds_per_image": seconds, "own_recipe": variant == "steps=4"}
        rows += _rows("vaebm", variant, fd, about, energy=fd / 10 - 1)
    own = {"sampling": {"temperature": 1.0}, "seconds_per_image": 0.9, "own_recipe": True}
    rows += _rows("nvae", "own recipe", 19.0, own, energy=None)
    for metric in ("fd_cifar10net", "kd_cifar10net", "score_gap", "energy_gap"):
        why: dict[str, Any] = {
            "note": "has no step size",
            "protocol": {"sampling": {"temperature": 1.0}, "own_recipe": False},
        }
        rows.append(_row("nvae", metric, None, "step_size=x0.5", **why))
    for metric, value in (("fd_cifar10net", 1.0), ("kd_cifar10net", 0.01)):
        rows.append(_row("test images", metric, value, "", role="control", size="", protocol=FEATURES))
    inside = {**SCORES, "outer": "svhn", "interval": DELONG}
    rows.append(_row("vaebm", "auroc_samples_over_outer", 0.73, "test images", role="control", protocol=inside))
    return rows


def _rows(system: str, variant: str, fd: float, about: dict[str, Any], energy: float | None) -> list[Measurement]:
    held_out = {**SCORES, "held_out": "cifar10 test", "interval": "delta method, 95 %", **about}
    found = [
        _row(system, "fd_cifar10net", fd, variant, protocol=FEATURES | about),
        _row(system, "kd_cifar10net", fd / 100, variant, protocol=FEATURES | about),
        _row(system, "score_gap", 1 - fd / 10, variant, protocol=held_out, n=1000),
        _row(
            system, "auroc_test_over_samples", 0.5 + fd / 50, variant, protocol={**held_out, "interval": DELONG}, n=1000
        ),
    ]
    outer = {**SCORES, "outer": "svhn", "interval": DELONG, **about}
    found.append(_row(system, "auroc_samples_over_outer", 0.8 - fd / 50, variant, protocol=outer, n=1000))
    note = {} if energy is not None else {"note": "its score has no term neg_energy"}
    return [*found, _row(system, "energy_gap", energy, variant, protocol=held_out, n=1000, **note)]


def _row(system: str, metric: str, value: float | None, variant: str, **more: Any) -> Measurement:
    fields: dict[str, Any] = {"n": 500, "role": "diagnostic", "size": "mini"} | more
    ends = {} if value is None else {"low": value - 0.01, "high": value + 0.01}
    return Measurement("tradeoff", system, "cifar10", metric, value, **ends, seed=0, variant=variant, **fields)
