"""Suites, by name, and what they are made of. Listing them imports no model."""

from vaebm.registry import Registry

SUITES = Registry(
    "suite",
    {
        "ood": "evaluators.ood:OODSuite",
        "speed": "evaluators.speed:SpeedSuite",
        "tradeoff": "evaluators.tradeoff:TradeoffSuite",  # before generation: its seconds are of drawing and nothing beside it
        "generation": "evaluators.generation:GenerationSuite",
        "modes": "evaluators.modes:ModesSuite",
    },
    group="vaebm.suites",
)
