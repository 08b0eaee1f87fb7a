"""What Langevin chains do, step by step: energies, how far eps and the image move, and how many steps are accepted.

A chain of k steps of size eta that only diffuses moves each coordinate of eps by sqrt(eta k) (root mean square). For the published settings
that is a few hundredths: chains are short refinements of the NVAE's samples, and these numbers show how much of a refinement.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaebm.model import VAEBM, ChainSettings
from vaebm.parallel import in_turns
from vaebm.sampling import SAMPLE_BLOCK, to_images
from vaebm.training.batches import from_uint8

QUANTILES = (5, 25, 50, 75, 95)

Row = dict[str, float | None]


def diagnose(
    model: VAEBM,
    seeds: Sequence[int],
    chain: ChainSettings,
    *,
    seed: int = 0,
    reference: np.ndarray | None = None,
) -> list[Row]:
    """Run the chains that :meth:`VAEBM.sample` runs and return one row per step, the start (the VAE's own samples) being step 0.

    Processes under torchrun share out the chains, in blocks; each gets all rows.

    Args:
        seeds: one chain each.
        reference: data to compare energies with, uint8 (M, H, W, C); what was not trained on.

    Returns:
        Rows of, over all chains (energies in nats, images in grey levels of 0 to 255):

        * ``step``
        * ``energy_mean``, ``energy_sd``, ``energy_q05`` ... ``energy_q95``: E of the chain's own x
        * ``energy_of_mean``: mean of E at the decoder mean, which is the image that is shown
        * ``energy_data_mean``, ``energy_data_sd``, ``energy_data_q05`` ...: E of the reference (the same in every row; None without one)
        * ``prior``: mean of ||eps||^2 / 2; D / 2 for D standard normal coordinates
        * ``acceptance``: share of the chains that moved in this step (None for unadjusted chains and at step 0)
        * ``moved_eps_z``, ``moved_eps_x``: distance from the start, root mean square per coordinate
        * ``moved_by_diffusion``: sqrt(eta k)
        * ``image_change``, ``image_step``: root mean square change of a pixel of the decoder mean, from the start and in this step
        * ``saturated``: share of x's pixels at 0 or 1, which pull at nothing
    """
    data = _energies(model, reference)

    def one(block: Sequence[int]) -> dict[str, np.ndarray]:
        steps = list(_watch(model, block, chain, seed))
        return {name: np.stack([values[name] for values in steps]) for name in steps[0]}

    parts = in_turns([seeds[i : i + SAMPLE_BLOCK] for i in range(0, len(seeds), SAMPLE_BLOCK)], one)
    chains = {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]}  # (steps + 1, N)
    rms = lambda name, k: math.sqrt(chains[name][k].mean())
    return [
        {
            "step": k,
            **_summary("energy", chains["energy"][k]),
            "energy_of_mean": float(chains["energy_of_mean"][k].mean()),
            **_summary("energy_data", data),
            "prior": float(chains["prior"][k].mean()),
            "acceptance": float(chains["accepted"][k].mean()) if chain.metropolis and k else None,
            "moved_eps_z": rms("moved_eps_z", k),
            "moved_eps_x": rms("moved_eps_x", k),
            "moved_by_diffusion": math.sqrt(chain.step_size * k),
            "image_change": rms("image_change", k),
            "image_step": rms("image_step", k),
            "saturated": float(chains["saturated"][k].mean()),
        }
        for k in range(chain.steps + 1)
    ]


@torch.no_grad()
def _watch(model: VAEBM, seeds: Sequence[int], chain: ChainSettings, seed: int) -> Iterator[dict[str, np.ndarray]]:
    """Yield what is measured of every chain at every step, each (n,); distances are mean squares."""
    start: list[Tensor] = []
    for state in model.trajectory(seeds, chain, seed=seed):
        x, decoded = model.decode(state, chain.temperature)
        image = decoded.distribution.mean.clamp(0, 1) * 255
        if not start:
            start, before, first_image, last_image = state, state, image, image
        square = lambda a, b: (a - b).square().flatten(1)
        changed = torch.stack([(a != b).flatten(1).any(1) for a, b in zip(state, before, strict=True)]).any(0)
        measured = {
            "energy": model.energy(x),
            "energy_of_mean": model.energy(image / 255),
            "prior": torch.stack([part.double().square().flatten(1).sum(1) / 2 for part in state]).sum(0),
            "accepted": changed,
            "moved_eps_x": square(state[0], start[0]).mean(1),
            "moved_eps_z": torch.cat([square(a, b) for a, b in zip(state[1:], start[1:], strict=True)], 1).mean(1),
            "image_change": square(image, first_image).mean(1),
            "image_step": square(image, last_image).mean(1),
            "saturated": ((x <= 0) | (x >= 1)).flatten(1).double().mean(1),
        }
        yield {name: values.double().cpu().numpy() for name, values in measured.items()}
        before, last_image = state, image


@torch.no_grad()
def _energies(model: VAEBM, images: np.ndarray | None) -> np.ndarray | None:
    if images is None:
        return None
    device = next(model.nvae.parameters()).device
    parts = [images[i : i + SAMPLE_BLOCK] for i in range(0, len(images), SAMPLE_BLOCK)]
    energies = in_turns(parts, lambda part: model.energy(from_uint8(part, device)).double().cpu().numpy())
    return np.concatenate(energies)


def _summary(name: str, values: np.ndarray | None) -> Row:
    names = [f"{name}_mean", f"{name}_sd", *(f"{name}_q{q:02d}" for q in QUANTILES)]
    if values is None:
        return dict.fromkeys(names)
    numbers = [values.mean(), values.std(ddof=1) if len(values) > 1 else 0.0, *np.percentile(values, QUANTILES)]
    return dict(zip(names, map(float, numbers), strict=True))


def strip(
    model: VAEBM, seeds: Sequence[int], chain: ChainSettings, *, seed: int = 0, columns: int = 9
) -> tuple[np.ndarray, list[int]]:
    """Return decoder means of chains over time: uint8 (len(seeds) * n, H, W, C), chain by chain, and the n <= ``columns`` steps shown."""
    shown = sorted({round(k) for k in np.linspace(0, chain.steps, columns)})
    images = [
        to_images(model.render(state, "mean", chain.temperature))
        for k, state in enumerate(model.trajectory(seeds, chain, seed=seed))
        if k in shown
    ]
    stacked = np.stack(images, axis=1)  # (chains, steps shown, H, W, C)
    return stacked.reshape(-1, *stacked.shape[2:]), shown


# Okabe & Ito's palette: told apart by colour-blind readers, and in print by the dashes.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"


def plot(rows: Sequence[Row], title: str = "") -> Any:
    """Return a matplotlib figure of the rows of :func:`diagnose`: energies, prior, distances, images, saturation and acceptance."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    column = lambda name: np.array([np.nan if row[name] is None else row[name] for row in rows], dtype=float)
    step = column("step")
    figure = Figure(figsize=(13, 7), layout="constrained")
    axes = figure.subplots(2, 3, sharex=True).flatten()
    energy, prior, distance, image, saturated, acceptance = axes

    energy.set_title("energy E (nats)")
    energy.fill_between(step, column("energy_q05"), column("energy_q95"), color=BLUE, alpha=0.2, linewidth=0)
    energy.plot(step, column("energy_q50"), color=BLUE, label="chains: median, 5 to 95%")
    energy.plot(step, column("energy_of_mean"), color=GREEN, linestyle="-.", label="decoder means: mean")
    if rows[0]["energy_data_mean"] is not None:
        energy.fill_between(
            step, column("energy_data_q05"), column("energy_data_q95"), color=ORANGE, alpha=0.15, linewidth=0
        )
        energy.plot(step, column("energy_data_q50"), color=ORANGE, linestyle="--", label="data: median, 5 to 95%")

    prior.set_title("||eps||² / 2, change from the start (nats)")
    prior.plot(step, column("prior") - column("prior")[0], color=BLUE)

    distance.set_title("distance from the start, rms of eps")
    distance.plot(step, column("moved_eps_z"), color=BLUE, label="eps_z")
    distance.plot(step, column("moved_eps_x"), color=GREEN, linestyle="-.", label="eps_x")
    distance.plot(step, column("moved_by_diffusion"), color=GREY, linestyle=":", label="diffusion alone, sqrt(eta k)")

    image.set_title("change of the image, rms grey levels")
    image.plot(step, column("image_change"), color=BLUE, label="from the start")
    image.plot(step[1:], column("image_step")[1:], color=ORANGE, linestyle="--", label="in this step")

    saturated.set_title("saturated pixels of x (%)")
    saturated.plot(step, 100 * column("saturated"), color=BLUE)

    acceptance.set_title("accepted steps (%)")
    if np.isfinite(column("acceptance")).any():
        acceptance.plot(step, 100 * column("acceptance"), color=BLUE)
        acceptance.set_ylim(0, 102)
    else:
        acceptance.text(
            0.5,
            0.5,
            "not adjusted: every step is taken",
            ha="center",
            va="center",
            transform=acceptance.transAxes,
            color=GREY,
        )
        acceptance.set_yticks([])
    for axis in axes:
        axis.grid(color="0.9", linewidth=0.6)
        axis.set_axisbelow(True)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, fontsize="small")
    for axis in axes[3:]:
        axis.set_xlabel("step")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.suptitle(title)
    return figure
