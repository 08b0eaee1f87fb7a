"""A feature extractor's batch size is decided before anything is kept under it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from evaluators.features import load_extractor, network
from vaebm.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)


def test_auto_is_a_number_before_the_first_image_and_in_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []

    def fitting(run: Callable[[int], Any], device: Any) -> int:
        passes.append(run(3)[0].shape)
        return 4

    monkeypatch.setattr(network, "fitting_size", fitting)
    extractor = load_extractor("cifar10net", batch_size="auto")
    assert passes == [(3, 256)]
    fixed = load_extractor("cifar10net", batch_size=4)
    assert extractor.fingerprint == fixed.fingerprint
    assert (extractor.fingerprint or {})["batch_size"] == 4
    found, expected = extractor.extract(IMAGES), fixed.extract(IMAGES)
    np.testing.assert_array_equal(found["features"], expected["features"])
    assert load_extractor("mnistnet", batch_size="auto").batch_size == 4  # type: ignore[attr-defined]
    assert passes[1:] == [(3, 128)]


@pytest.mark.parametrize("wrong", [0, -3, "many"])
def test_another_word_or_too_small_a_number_is_refused(wrong: Any) -> None:
    with pytest.raises(UserError, match=f"--batch-size {wrong}: needed at least 1, or auto"):
        load_extractor("cifar10net", batch_size=wrong)


def test_no_memory_is_a_line_and_the_size_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    extractor: Any = load_extractor("cifar10net", batch_size=5)

    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(extractor.network, "forward", full)
    with pytest.raises(UserError, match="--batch-size 5: cifar10net on cpu has no memory for it; take less, or auto"):
        extractor.extract(IMAGES)
    assert extractor.batch_size == 5


def test_the_order_of_channels_in_memory_changes_no_feature_beyond_rounding() -> None:
    extractor: Any = load_extractor("cifar10net")
    last = extractor.extract(IMAGES)
    assert extractor.layout is torch.channels_last
    extractor.layout = torch.contiguous_format
    extractor.network.to(memory_format=torch.contiguous_format)
    first = extractor.extract(IMAGES)
    for head in ("features", "logits"):
        assert np.abs(last[head] - first[head]).max() <= 1e-5 * np.abs(first[head]).max()
