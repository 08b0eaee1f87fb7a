"""HDGE: a classifier trained by contrast of images, without any chain; its score is JEM's.

The logits f(x)[y] define p(x, y) proportional to exp(f(x)[y]), as in JEM. Trained are p(y|x), by cross-entropy, and

    log q(x|y) = log exp(f(x)[y] / t) / (exp(f(x)[y] / t) + sum_{x' in queue} exp(f(x')[y] / t)),

where images of a queue stand in for the integral over x that normalises p(x|y) (:func:`contrast`). Published is no sampler.

The released code can score by q(x|y) as well ("pxsim"). That takes the true label of every scored image, out-of-distribution ones
included, so that it is not a score of images, and it is not here.

Reference: Liu and Abbeel, "Hybrid Discriminative-Generative Training via Contrastive Learning", 2020,
https://arxiv.org/abs/2007.09070
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.backbones.wide_resnet import WideResNet, WideResNetArchitecture
from baselines.jem import ClassifierScores, ClassifierScoring


def contrast(logits: Tensor, labels: Tensor, queue: Tensor, *, temperature: float, unit_length: bool) -> Tensor:
    """Return log q(x|y) (N,), at most 0; it is -log(1 + K) where an image is like those of the queue.

    Args:
        logits: f(x), (N, classes).
        labels: y, integers (N,).
        queue: f(x') of the K images to tell x from, (K, classes).
        temperature: t.
        unit_length: divide every f(x) by its Euclidean norm first, as the released code does: the contrast then leaves the scale of
            the logits to the cross-entropy.
    """
    if unit_length:
        logits, queue = F.normalize(logits, dim=1), F.normalize(queue, dim=1)
    own = logits.gather(1, labels[:, None])  # (N, 1)
    others = queue.T[labels]  # (N, K): the column of each image's class
    return torch.cat([own, others], dim=1).div(temperature).log_softmax(dim=1)[:, 0]


@dataclass(frozen=True)
class HDGERecipe(ClassifierScoring):
    """Nothing but how it scores."""


class HDGESystem(ClassifierScores):
    """HDGE as a system under test: it scores, as JEM does."""

    kind = "hdge"
    Architecture, Network, Recipe = WideResNetArchitecture, WideResNet, HDGERecipe
