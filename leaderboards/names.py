"""How data sets, systems, terms and statistics are called in print; a name that is not listed is printed as given."""

from functools import cache

from leaderboards.published import read_published

IN_DISTRIBUTION = "cifar10"  # of the paper's Table 6

DATASETS = {
    "svhn": "SVHN",
    "cifar10_interp": "Interp.",
    "cifar100": "CIFAR-100",
    "celeba": "CelebA",
    "cifar10": "CIFAR-10",
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "kmnist": "KMNIST",
    "mnist32": "MNIST",
    "stacked_mnist": "StackedMNIST",
    "celeba64": "CelebA 64",
    "lsun_church64": "LSUN Church 64",
    "celebahq256": "CelebA HQ 256",
    "ffhq256": "FFHQ 256",
    "imagenet32": "ImageNet 32",
    "fashion_mnist32": "FashionMNIST",
    "kmnist32": "KMNIST",
    "stacked_fashion_mnist": "StackedFashionMNIST",
    "stacked_kmnist": "StackedKMNIST",
    "textures": "Textures",
    "places365": "Places365",
    "tiny_imagenet": "Tiny ImageNet",
    "lsun_crop": "LSUN (crop)",
    "lsun_resize": "LSUN (resize)",
    "gaussian_noise": "Gaussian noise",
    "uniform_noise": "Uniform noise",
    "constant": "Constant",
    "mean": "Mean",
    "mean_near": "Near mean",
    "mean_far": "Far mean",
}
MEANS = ("mean", "mean_near", "mean_far")  # data sets of rows that are means over sets

# "-E(x)" and "log p(x)" in ASCII, so that the same words serve a terminal, Markdown and LaTeX.
TERMS = {
    "": "score",
    "score": "score",
    "log_p": "log p(x)",
    "neg_energy": "-E(x)",
    "energy": "E(x)",
    "log_likelihood": "likelihood",  # log p(x | z); a bar would end a cell of Markdown
    "log_prior": "log p(z)",
}

EXTRA = "score:"  # of the variants of scores beyond the paper

SYSTEMS = {"short_run": "Short-run EBM"}  # without a published row

STATISTICS = {
    "high_pass_energy": "high-pass energy",
    "total_variation": "total variation",
    "pixel_std": "pixel std",
    "codec_bytes": "codec bytes",
}


def dataset_title(name: str) -> str:
    """Return the printed name of a data set."""
    return DATASETS.get(name, name)


def term_title(name: str) -> str:
    """Return the printed name of a term of a score; the empty name is the score itself. A score beyond the paper,
    ``"score:typicality:25"``, is called ``"typicality (25)"``."""
    if not name.startswith(EXTRA):
        return TERMS.get(name, name)
    score, _, parameter = name.removeprefix(EXTRA).partition(":")
    return score.replace("_", " ") + (f" ({parameter})" if parameter else "")


def statistic_title(name: str) -> str:
    """Return the printed name of an image statistic."""
    return STATISTICS.get(name, name)


def system_label(system: str, variant: str = "") -> str:
    """``("vaebm", "neg_energy")`` makes ``"VAEBM: -E(x)"``; a system that is not known keeps its name."""
    label = _published_labels().get(system) or SYSTEMS.get(system, statistic_title(system))
    return f"{label}: {term_title(variant)}" if variant else label


@cache
def _published_labels() -> dict[str, str]:
    """Where tables call a system differently, the first one that they print is taken."""
    return {row.system: row.provenance["label"] for row in reversed(read_published())}
