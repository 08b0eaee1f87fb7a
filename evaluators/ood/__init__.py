"""The out-of-distribution suite: does a score rank images of the training distribution above images of others?

For every system and every outer data set: AUROC (DeLong interval), AUPR and FPR95 (bootstrap intervals), the mean AUROC,
and what keeps these numbers honest: each additive term of the score alone, the AUROC as a function of the weight of the last term,
zero-parameter image statistics as rivals, and the rank correlation of each system with them.

Reference for the protocol: Xiao, Kreis, Kautz and Vahdat, VAEBM (ICLR 2021), table 6. In-distribution = positive,
higher score = in-distribution.
"""

from evaluators.ood.suite import COEFFICIENTS, OODResult, OODSuite
from evaluators.score_files import load_scores

__all__ = ["COEFFICIENTS", "OODResult", "OODSuite", "load_scores"]
