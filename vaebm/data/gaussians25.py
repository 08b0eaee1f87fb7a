"""The 25 Gaussians: a mixture on a 5 x 5 grid, for which every likelihood has an exact answer.

p(x) = 1/25 sum_k N(x; c_k, s^2 I),   c_k in {-4, -2, 0, 2, 4}^2,   s = 0.1

The modes lie 20 s apart, so the entropy is that of the mixture weights plus that of one Gaussian, and the density's own expected
log-likelihood is E log p = -log 25 - 1 - log(2 pi s^2) = -1.4516 nats (the overlap changes it by less than 1e-20). No real model has a
higher expected log-likelihood. The spacing is the field's; the width is the round number at which E log p is near -1.5 nats.

References: the grid: Che et al., Mode Regularized GANs, ICLR 2017; Lin et al., PacGAN, NeurIPS 2018.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]  # (N, 2)

CENTRES: Points = np.array([(a, b) for a in (-4.0, -2.0, 0.0, 2.0, 4.0) for b in (-4.0, -2.0, 0.0, 2.0, 4.0)])
SD = 0.1
EXPECTED_LOG_LIKELIHOOD = -math.log(len(CENTRES)) - 1 - math.log(2 * math.pi * SD**2)
CENTRES.flags.writeable = False


def log_density(points: Points) -> NDArray[np.float64]:
    """Return log p at points (N, 2): float64 (N,), in nats."""
    # By far the nearest mode decides; the others enter through log-sum-exp.
    exponents = -np.square(points[:, None] - CENTRES).sum(2) / (2 * SD**2)
    largest = exponents.max(1)
    total = np.exp(exponents - largest[:, None]).sum(1)
    return largest + np.log(total) - math.log(len(CENTRES) * 2 * math.pi * SD**2)


def sample_points(seeds: Sequence[int], purpose: str = "sample") -> Points:
    """Draw one point per seed, float64 (N, 2); draws for different purposes are independent."""
    from vaebm.noise import normal, uniform

    mode = (uniform(0, seeds, f"gaussians25.{purpose}.mode", (1,)).numpy()[:, 0] * len(CENTRES)).astype(int)
    return CENTRES[mode] + SD * normal(0, seeds, f"gaussians25.{purpose}.place", (2,)).numpy().astype(np.float64)
