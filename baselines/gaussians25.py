"""The bundled models of the 25 Gaussians: points of the plane, with exact densities (see :mod:`vaebm.toy`)."""

from pathlib import Path

from vaebm.toy.checkpoints import load
from vaebm.toy.vae import ToyVAE
from vaebm.toy.vaebm import ToyVAEBM

FILES = {
    name: Path(__file__).parent / "checkpoints" / f"{name}-mini-gaussians25.safetensors" for name in ("vae", "vaebm")
}


def load_gaussians25() -> dict[str, ToyVAE | ToyVAEBM]:
    """Return the VAE and the VAEBM built on it, by name.

    Each has ``sample_points(seeds)``, ``log_density(points)``, ``grid_log_density(first, second)``, ``protocol`` and ``size``.

    Raises:
        UserError: a file is missing or damaged.
    """
    return {name: load(path) for name, path in FILES.items()}
