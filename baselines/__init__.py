"""The systems of the paper's tables: one file each, by name. Listing them imports no network."""

from vaebm.registry import Registry

SYSTEMS = Registry(
    "system",
    {
        "vaebm": "baselines.vaebm:VAEBMSystem",
        "nvae": "baselines.nvae:NVAESystem",
        "igebm": "baselines.igebm:IGEBMSystem",
        "glow": "baselines.glow:GlowSystem",
    },
    group="vaebm.systems",
)
