"""The plots and sample grids that lie beside the result files, as data URIs with a caption and a text in their place."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluators.measurement import Measurement
from evaluators.result_file import Results
from leaderboards import names
from leaderboards.tables.steps import on_curve

# File without its ending -> (caption, text for those who do not see it).
STRIP = "tradeoff_strip_"  # and the system
KNOWN = {
    STRIP: ("Chains over time", "Samples of {systems}: a row is a chain, a column what it shows after so many steps."),
    "ood_histograms": (
        "Histograms of the scores",
        "One panel per system ({systems}): a filled histogram of its scores on the in-distribution images, and an outline"
        " for each out-of-distribution set ({datasets}).",
    ),
    "ood_roc": (
        "ROC curves",
        "One panel per system ({systems}): true positive rate against false positive rate for {datasets}.",
    ),
    "ood_coefficient": (
        "AUROC against a coefficient on the energy",
        "AUROC of log p(x) - c E(x) against c, one line for each of {datasets}.",
    ),
    "speed_seconds": (
        "Seconds per image",
        "One line per system ({systems}): seconds per image with their interval, and how many times faster it is than others.",
    ),
    "tradeoff_pareto": (
        "Quality against cost, and the front of it",
        "Distance against seconds per image for the settings of {systems}; those that no other beats in both are joined.",
    ),
    "tradeoff_steps": ("Against chain steps", "Each metric against the number of chain steps, for {systems}."),
    "tradeoff_step_sizes": (
        "Against step size",
        "Each metric against chain steps at several step sizes, for {systems}.",
    ),
    "tradeoff_temperatures": ("Against temperature", "Each metric against the temperature, for {systems}."),
    "tradeoff_seconds": ("Against seconds", "Each metric against seconds per image, for {systems}."),
    "generation_samples": ("Samples", "Grids of images drawn by {systems}."),
    "generation_neighbours": (
        "Samples beside their nearest training images",
        "Samples of {systems}, each followed by the training images nearest to it.",
    ),
    "generation_steps": (
        "Quality against Langevin steps",
        "Each metric against the number of Langevin steps, for {systems}, with its interval.",
    ),
    "generation_costs": (
        "Quality against cost",
        "Each metric against seconds per image, for {systems}, with its interval.",
    ),
    "modes_costs": (
        "Mode coverage against cost",
        "Each metric against seconds per image, for {systems}, with its interval.",
    ),
    "modes_samples": ("Samples", "Grids of images drawn by {systems}."),
    "modes_counts": (
        "How many images each mode got",
        "One panel per system ({systems}): how many modes got how many images, and what an even sampler would show.",
    ),
    "modes_densities": (
        "Densities on the 25 Gaussians",
        "For the true density and each of {systems}: a map of the density, and below it the samples.",
    ),
    "modes_steps": (
        "Mode coverage against Langevin steps",
        "Each metric against the number of Langevin steps, for {systems}, with its interval.",
    ),
}
ELSEWHERE = " The tables above hold its numbers."

BUDGET = 6_000_000  # bytes of all pictures, which Base64 makes a third longer: the page stays below 10 MB
WIDEST = 16_383  # pixels of a side that WebP can hold
QUALITY = 85  # of lossy WebP


@dataclass(frozen=True)
class Figure:
    """A picture of the page; ``reduced``: it was made smaller for it."""

    file: str
    caption: str
    alt: str
    uri: str
    width: int
    height: int
    reduced: bool


@dataclass(frozen=True)
class Picture:
    """An image file: its bytes, ``"png"`` or ``"webp"``, and (width, height)."""

    content: bytes
    kind: str
    size: tuple[int, int]
    reduced: bool = False


def page_figures(suites: Iterable[str], runs: Sequence[tuple[Path, Results]]) -> dict[str, list[Figure]]:
    """Return for each suite the figures ``<suite>_*.png`` beside its result files, each file once.

    A file that is no picture is left out. Together they take at most ``BUDGET`` bytes, see :func:`fit`.
    """
    suites = list(suites)
    known = {*suites, *(suite for _, results in runs for suite in results.suite.split(","))}
    found: dict[str, dict[Path, list[Measurement]]] = {suite: {} for suite in suites}
    for path, results in runs:
        for suite in set(results.suite.split(",")) & found.keys():
            rows = [row for row in results.rows if row.suite == suite]
            for file in sorted(path.resolve().parent.glob("*.png")):
                if owner(file.stem, known) == suite:
                    found[suite].setdefault(file, []).extend(rows)
    pictures = {file: picture for files in found.values() for file in files if (picture := read_picture(file))}
    fitted = fit(pictures, BUDGET)
    return {suite: _figures(suite, files, fitted) for suite, files in found.items()}


def owner(stem: str, suites: Iterable[str]) -> str:
    """Return the suite that a file is called after; of two, as ``modes`` and ``modes_toy``, the longer name."""
    return max((suite for suite in suites if stem.startswith(f"{suite}_")), key=len, default="")


def words(stem: str, suite: str, rows: Iterable[Measurement]) -> tuple[str, str]:
    """Return caption and text of a plot, made from its name and the measured rows of the suite."""
    measured = [row for row in rows if row.origin == "measured"]
    curves = [row for row in measured if on_curve(row)] if stem == f"{suite}_steps" else []
    told = curves or [row for row in measured if row.role == "headline"] or [r for r in measured if r.role != "control"]
    inside = {row.protocol.get("in_distribution") for row in told}
    kept = [row.dataset for row in told if row.dataset not in {*inside, *names.MEANS}]
    systems = _listed(dict.fromkeys(names.system_label(row.system) for row in told), "the measured systems")
    datasets = _listed(dict.fromkeys(map(names.dataset_title, kept)), "the data sets")
    if stem.startswith(STRIP):
        systems, stem = names.system_label(stem.removeprefix(STRIP)), STRIP
    name = stem.removeprefix(f"{suite}_").replace("_", " ")
    caption, text = KNOWN.get(stem, (name[:1].upper() + name[1:], f'Plot "{name}" of {{systems}}.'))
    return caption, text.replace("{systems}", systems).replace("{datasets}", datasets) + ELSEWHERE


def read_picture(file: Path) -> Picture | None:
    """Return a PNG file, or ``None`` if it is none: a page of results must not fail for a plot."""
    from PIL import Image

    try:
        content = file.read_bytes()
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            image.load()
            return Picture(content, "png", image.size)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def fit(pictures: Mapping[Path, Picture], budget: int) -> dict[Path, Picture]:
    """Make pictures smaller until all of them take at most ``budget`` bytes: the same pixels as WebP, then WebP of quality 85,
    then the one with most bytes at half its width and height, again and again."""
    fitted = dict(pictures)
    size = lambda: sum(len(picture.content) for picture in fitted.values())
    for lossless in (True, False):
        if size() > budget:
            fitted = {file: _webp(pictures[file], 1, lossless) for file in fitted}
    halved = dict.fromkeys(fitted, 1)
    while size() > budget:
        file = max(fitted, key=lambda file: len(fitted[file].content))
        if max(fitted[file].size) < 64:  # nothing is left to be saved
            break
        halved[file] *= 2
        fitted[file] = _webp(pictures[file], halved[file], lossless=False)
    return fitted


def _webp(picture: Picture, shrink: int, lossless: bool) -> Picture:
    from PIL import Image

    with Image.open(io.BytesIO(picture.content)) as image:
        while max(image.size) / shrink > WIDEST:
            shrink *= 2
        small = image.convert("RGBA" if image.has_transparency_data else "RGB").reduce(shrink)
    out = io.BytesIO()
    small.save(out, "WEBP", lossless=lossless, quality=QUALITY)
    content = out.getvalue()
    exact = lossless and shrink == 1
    if exact and len(content) >= len(picture.content):
        return picture
    return Picture(content, "webp", small.size, reduced=not exact)


def _figures(suite: str, files: Mapping[Path, Sequence[Measurement]], pictures: Mapping[Path, Picture]) -> list[Figure]:
    folders = {file.parent for file in files}
    made = []
    for file, rows in files.items():
        if file not in pictures:
            continue
        picture = pictures[file]
        caption, alt = words(file.stem, suite, rows)
        made.append(
            Figure(
                file=file.name,
                caption=f"{caption} ({file.parent.name})" if len(folders) > 1 else caption,
                alt=alt,
                uri=f"data:image/{picture.kind};base64,{base64.b64encode(picture.content).decode()}",
                width=picture.size[0],
                height=picture.size[1],
                reduced=picture.reduced,
            )
        )
    return made


def _listed(found: Iterable[str], none: str) -> str:
    *first, last = list(found) or [none]
    return f"{', '.join(first)} and {last}" if first else last
