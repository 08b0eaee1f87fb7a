"""Suites, by name, and what they are made of. Listing them imports no model."""

from vaebm.registry import Registry

SUITES = Registry(
    "suite",
    {
        "ood": "evaluators.ood:OODSuite",
        "generation": "evaluators.generation:GenerationSuite",
        "modes": "evaluators.modes:ModesSuite",
        "speed": "evaluators.speed:SpeedSuite",
        "tradeoff": "evaluators.tradeoff:TradeoffSuite",
    },
    group="vaebm.suites",
)
