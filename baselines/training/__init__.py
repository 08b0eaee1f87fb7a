"""Training of the baselines: one task per kind of system, one loop, one export. ``python -m baselines train KIND``."""

from vaebm.registry import Registry

TASKS = Registry(
    "kind",
    {
        "glow": "baselines.training.glow:GlowTask",
        "igebm": "baselines.training.igebm:IGEBMTask",
    },
)
