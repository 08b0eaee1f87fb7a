"""The generation suite: how good are a model's samples? Every number from one pass over one set of images.

Systems and a user's own images are drawn or read once, their features extracted once per feature space, and all metrics
(``evaluators.quality``) taken from these. The protocol on every row says features, resize, reference, N, k and sampling recipe.

Reference for the paper's protocol: Xiao, Kreis, Kautz and Vahdat, VAEBM (ICLR 2021), tables 1 to 3: FID and IS of 50,000 samples.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from evaluators import drawing, spaces
from evaluators.ahead import Ahead, spare
from evaluators.measurement import Measurement
from evaluators.pixels import nearest_images, pixel_rows
from evaluators.protocols import Images
from evaluators.quality import METRICS
from evaluators.spaces import Space
from evaluators.suite import Bench, Option
from vaebm.errors import UserError, did_you_mean

NUM_IMAGES = 2000  # per system, unless told otherwise; the paper's protocol is 50,000
SHOWN = 64  # samples in a grid
PAIRS, NEIGHBOURS = 8, 5  # samples shown with their nearest training images, and how many of these


@dataclass(frozen=True)
class GenerationResult:
    """What a run found.

    Attributes:
        rows: see :meth:`GenerationSuite.measure`.
        samples: system -> its first images.
        neighbours: system -> (samples (k, H, W, C), their nearest training images in pixels (k, m, H, W, C)).
    """

    rows: list[Measurement]
    samples: dict[str, Images] = field(default_factory=dict)
    neighbours: dict[str, tuple[Images, Images]] = field(default_factory=dict)


class GenerationSuite:
    """Measures sample quality. It has no settings beside its options."""

    name: ClassVar[str] = "generation"
    needs: ClassVar[tuple[str, ...]] = ("sampler", "features")
    options: ClassVar[Mapping[str, Option]] = {
        **drawing.OPTIONS,
        **spaces.OPTIONS,
        "--metrics": {
            "type": str,
            "default": "",
            "help": f"with commas (default: all that the features allow): {', '.join(METRICS)}",
        },
    }

    def measure(self, bench: Bench) -> GenerationResult:
        """Draw, extract, measure.

        Returns:
            Rows with suite ``"generation"``, ``dataset`` what the systems model, ``n`` the number of samples, ``metric`` as
            ``metric_name`` says (``fid``, ``fd_cifar10net``, ...).

            ==========  =============  ==================================================================
            role        variant        what
            ==========  =============  ==================================================================
            headline                   a system's or the user's images
            diagnostic  ``steps=<k>``  samples after k chain steps (``--steps``)
            control                    system ``"test images"``: held-out images in place of samples
            ==========  =============  ==================================================================

        Raises:
            UserError: an unknown option value, or unusable samples or reference.
        """
        options = bench.options
        metrics, dataset = _metrics(options.metrics), options.dataset or "cifar10"
        n = options.num_images or NUM_IMAGES
        extractors = spaces.load_extractors(bench)
        chosen = [Space(self.name, bench, dataset, name, extractor, metrics) for name, extractor in extractors.items()]
        result = GenerationResult([])
        with Ahead(spare(options.device)) as ahead:
            # Features of what is there are extracted while the next images are being drawn.
            drawn = drawing.draw(
                bench, dataset, n, spaces.available(extractors), lambda each: spaces.begin(each, chosen, ahead)
            )
            held_out = spaces.held_out_images(bench, dataset, n)
            for space in chosen:
                space.prepare(held_out)
                for each in drawn:
                    result.rows.extend(space.rows(each))
                result.rows.extend(space.rows(held_out, role="control"))
        for each in drawn:
            if each.steps is None and each.images is not None:
                result.samples[each.name] = np.asarray(each.images[:SHOWN])
        rows, train = pixel_rows(bench, dataset, drawn, held_out, metrics)
        result.rows.extend(rows)
        for name, images in result.samples.items():
            if train is not None and images.shape[1:] == train.shape[1:]:
                shown = images[:PAIRS]
                result.neighbours[name] = (shown, nearest_images(shown, train, NEIGHBOURS))
        return result

    def forecast(self, bench: Bench) -> str:
        """Return what drawing and extracting would cost."""
        _metrics(bench.options.metrics)
        n = bench.options.num_images or NUM_IMAGES
        extractors = spaces.available(spaces.load_extractors(bench))
        return drawing.forecast(bench, bench.options.dataset or "cifar10", n, extractors)


def _metrics(text: str) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(word for word in text.split(",") if word))
    for name in chosen:
        if name not in METRICS:
            raise UserError(f"--metrics {name}: unknown.{did_you_mean(name, METRICS)}")
    return chosen or METRICS
