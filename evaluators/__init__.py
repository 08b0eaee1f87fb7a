"""Suites, by name, and what they are made of. Listing them imports no model."""

from vaebm.registry import Registry

SUITES = Registry(
    "suite",
    {
        "ood": "evaluators.ood:OODSuite",
        "generation": "evaluators.generation:GenerationSuite",
        "modes": "evaluators.modes:ModesSuite",
    },
    group="vaebm.suites",
)
