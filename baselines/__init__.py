"""The systems of the paper's tables: one file each, by name. Listing them imports no network."""

from vaebm.registry import Registry

SYSTEMS = Registry(
    "system",
    {
        "vaebm": "baselines.vaebm:VAEBMSystem",
        "nvae": "baselines.nvae:NVAESystem",
        "igebm": "baselines.igebm:IGEBMSystem",
        "glow": "baselines.glow:GlowSystem",
        "jem": "baselines.jem:JEMSystem",
        "hdge": "baselines.hdge:HDGESystem",
        "pixelcnn": "baselines.pixelcnn:PixelCNNSystem",
        "lebm": "baselines.lebm:LEBMSystem",
        "divergence_triangle": "baselines.divergence_triangle:DivergenceTriangleSystem",
        "short_run": "baselines.short_run:ShortRunSystem",
        "ncsn": "baselines.ncsn:NCSNSystem",
        "ncsnv2": "baselines.ncsnv2:NCSNv2System",
        "ddpm": "baselines.ddpm:DDPMSystem",
    },
    group="vaebm.systems",
)
