"""A realistic run of the OOD suite: four mini systems, a user's scores and own set, CelebA missing for most."""

import pytest

from evaluators.measurement import Measurement

NO_CELEBA = "CelebA may not be redistributed: pass --data-root or set VAEBM_DATA to a folder that holds it."
SETS = ("svhn", "cifar10_interp", "cifar100", "celeba", "mean", "my_textures")
N_OUT = {"svhn": 2000, "cifar10_interp": 2000, "cifar100": 1982, "celeba": 2000, "mean": 2000, "my_textures": 640}
AUROC = {
    "vaebm": (0.7213, 0.7541, 0.5672, None, 0.6809, 0.8123),
    "nvae": (0.2514, 0.6432, 0.5418, None, 0.4788, 0.4012),
    "igebm": (0.4411, 0.6120, 0.5203, None, 0.5245, 0.5527),
    "glow": (0.0712, 0.5205, 0.5311, None, 0.3743, 0.2938),
    "my_density": (0.6044, 0.6633, 0.5907, 0.7021, 0.6401, 0.7713),
}
ESTIMATORS = {
    "vaebm": "log p(x) by the ELBO, minus E(x)",
    "nvae": "log p(x) by the ELBO",
    "igebm": "-E(x)",
    "glow": "exact log p(x)",
    "my_density": "scores given by the user",
}
STATISTICS = ("high_pass_energy", "total_variation", "pixel_std", "codec_bytes")


def protocol(system: str, dataset: str) -> dict[str, object]:
    return {
        "in_distribution": "cifar10",
        "split": "test",
        "resize": "none",
        "n_in": 2000,
        "n_out": N_OUT.get(dataset, 2000),
        "duplicates_removed": 18 if dataset == "cifar100" else 0,
        "estimator": ESTIMATORS.get(system, "zero-parameter statistic"),
        "interval": "DeLong, 95 %",
    }


def cell(system: str, dataset: str, metric: str, value: float | None, **kwargs: object) -> Measurement:
    size = "mini" if system in ("vaebm", "nvae", "igebm", "glow") else ""
    spread = 0.0152
    low, high = (None, None) if value is None else (value - spread, value + spread)
    note = NO_CELEBA if value is None else ""
    fields: dict[str, object] = {
        "suite": "ood",
        "low": low,
        "high": high,
        "n": None if value is None else 2000 + N_OUT.get(dataset, 0),
        "seed": 0,
        "size": size,
        "protocol": protocol(system, dataset),
        "note": note,
    }
    return Measurement(system=system, dataset=dataset, metric=metric, value=value, **{**fields, **kwargs})


def ood_rows() -> list[Measurement]:
    rows = []
    for system, values in AUROC.items():
        for dataset, value in zip(SETS, values, strict=True):
            caveat = "Mean over the sets with a value." if dataset == "mean" and system != "my_density" else ""
            rows.append(cell(system, dataset, "auroc", value, **({"note": caveat} if caveat else {})))
            for metric, shift in (("aupr", 0.0123), ("fpr95", 0.2)):
                other = None if value is None else value + shift if metric == "aupr" else 1 - value / 1.05
                base_rate = 2000 / (2000 + N_OUT[dataset])
                rows.append(
                    cell(system, dataset, metric, other, protocol=protocol(system, dataset) | {"base_rate": base_rate})
                )
    for term, scale in (("log_p", 0.6), ("neg_energy", 1.05)):
        for dataset, value in zip(SETS, AUROC["vaebm"], strict=True):
            scaled = None if value is None else min(value * scale, 0.99)
            rows.append(cell("vaebm", dataset, "auroc", scaled, role="diagnostic", variant=term))
        rows.append(
            Measurement("ood", "vaebm", "cifar10", f"sd_{term}", 612.3 * scale, role="diagnostic", seed=0, size="mini")
        )
    for c in (0.0, 0.1, 0.3, 1.0, 3.0, 10.0):
        for dataset, value in zip(SETS, AUROC["vaebm"], strict=True):
            moved = None if value is None else value * (0.4 + 0.6 * min(c, 1.0)) + 0.01 * c
            rows.append(cell("vaebm", dataset, "auroc_at_coefficient", moved, role="diagnostic", variant=f"c={c:g}"))
    for i, statistic in enumerate(STATISTICS):
        for dataset, value in zip(SETS, (0.93, 0.71, 0.52, None, 0.72, 0.66), strict=True):
            level = None if value is None else value - 0.05 * i
            rows.append(cell(statistic, dataset, "auroc", level, role="control"))
        for system, rho in (("vaebm", -0.4312), ("nvae", -0.8813), ("igebm", -0.2214), ("glow", -0.9127)):
            shown = protocol(system, "cifar10") | {"interval": "Fisher z, 95 %"}
            given = {"role": "control", "protocol": shown, "n": 2000}
            rows.append(cell(system, "cifar10", "rank_correlation", rho + 0.1 * i, variant=statistic, **given))
        for term in ("log_p", "neg_energy"):
            given = {"role": "diagnostic", "variant": f"{term}:{statistic}", "n": 2000}
            shown = protocol("vaebm", "cifar10") | {"interval": "Fisher z, 95 %"}
            rows.append(cell("vaebm", "cifar10", "rank_correlation", 0.2 * i - 0.5, protocol=shown, **given))
    return rows


@pytest.fixture
def rows() -> list[Measurement]:
    return ood_rows()
