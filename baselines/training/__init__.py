"""Training of the baselines: one task per kind of system, one loop, one export. ``python -m baselines train KIND``."""

from vaebm.registry import Registry

TASKS = Registry(
    "kind",
    {
        "glow": "baselines.training.glow:GlowTask",
        "igebm": "baselines.training.igebm:IGEBMTask",
        "jem": "baselines.training.jem:JEMTask",
        "hdge": "baselines.training.hdge:HDGETask",
        "pixelcnn": "baselines.training.pixelcnn:PixelCNNTask",
        "lebm": "baselines.training.lebm:LEBMTask",
        "divergence_triangle": "baselines.training.divergence_triangle:DivergenceTriangleTask",
        "short_run": "baselines.training.short_run:ShortRunTask",
    },
)
