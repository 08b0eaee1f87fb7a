"""Scores beyond the paper: what can be made of a system's score, or asked of it, besides that score itself.

    parse_scores("typicality,typicality:25,likelihood_ratio:pixelcnn")

One file per score: a pure function of arrays, and a small class that says what it needs of a system. Other packages add
theirs through the entry-point group ``vaebm.ood_scores``; what a class offers is ``readings.ExtraScore``.
"""

from typing import TYPE_CHECKING

from vaebm.errors import UserError
from vaebm.registry import Registry

if TYPE_CHECKING:
    from evaluators.ood.scores.readings import ExtraScore

SCORES = Registry(
    "score",
    {
        "typicality": "evaluators.ood.scores.typicality:Typicality",
        "likelihood_ratio": "evaluators.ood.scores.likelihood_ratio:LikelihoodRatio",
        "input_complexity": "evaluators.ood.scores.input_complexity:InputComplexity",
        "likelihood_regret": "evaluators.ood.scores.likelihood_regret:LikelihoodRegret",
        "score_norm": "evaluators.ood.scores.score_norm:ScoreNorm",
    },
    group="vaebm.ood_scores",
)


def parse_scores(text: str) -> "list[ExtraScore]":
    """Read ``NAME[:PARAMETER]`` with commas.

    Raises:
        UserError: an unknown name (with the nearest known one), a parameter that the score does not take, or one score
            twice.
    """
    scores: list[ExtraScore] = []
    for spec in filter(None, text.split(",")):
        name, colon, parameter = spec.partition(":")
        if colon and not parameter:
            raise UserError(f"--score {spec}: found nothing behind the colon; leave it out, or name a parameter")
        try:
            made = SCORES.load(name)(parameter)
        except UserError as error:
            raise UserError(f"--score {spec}: {error}") from None
        if made.spec in [other.spec for other in scores]:
            raise UserError(f"--score {spec}: this score is named twice; needed each once")
        scores.append(made)
    return scores


def whole(parameter: str, what: str, default: int) -> int:
    """Return a parameter that is a whole number of at least 1, or ``default`` for none.

    Raises:
        UserError: it is not one.
    """
    if not parameter:
        return default
    if not (parameter.isascii() and parameter.isdigit() and int(parameter) >= 1):
        raise UserError(f"found {parameter!r}, needed {what}, a whole number of at least 1")
    return int(parameter)


def nothing(parameter: str) -> None:
    """Refuse a parameter."""
    if parameter:
        raise UserError(f"found the parameter {parameter!r}, but this score takes none")
