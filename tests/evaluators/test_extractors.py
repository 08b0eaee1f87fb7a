"""Extractors by name: every option takes effect or is refused, images are brought to the network's size alike, mistakes are one line."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from evaluators.features import EXTRACTORS, load_extractor, metric_name
from evaluators.features.classifiers import CLASSIFIERS, Classifier
from evaluators.features.extractor import Extractor
from evaluators.features.network import exact_arithmetic, hash_of_state
from vaebm.data import DataUnavailable
from vaebm.errors import UserError


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Weights at random of each bundled classifier, with cards, in files."""
    folder, found = tmp_path_factory.mktemp("weights"), {}
    for seed, name in enumerate(CLASSIFIERS):
        torch.manual_seed(seed)
        found[name] = folder / f"{name}.safetensors"
        save_file(Classifier(CLASSIFIERS[name]).state_dict(), found[name])
        sha256 = hashlib.sha256(found[name].read_bytes()).hexdigest()
        found[name].with_suffix(".json").write_text(json.dumps({"sha256": sha256}))
    return found


def pictures(n: int, shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("name", list(CLASSIFIERS))
def test_classifiers_give_features_and_logits_of_their_network(name: str, weights: dict[str, Path]) -> None:
    extractor = load_extractor(name, weights=weights[name], batch_size=4)
    images = pictures(6, CLASSIFIERS[name].image_shape)
    found = extractor.extract(images)
    net = Classifier(CLASSIFIERS[name]).eval()
    net.load_state_dict(load_file(weights[name]))
    with torch.no_grad():
        features, logits = net(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).float() / 255)
    assert extractor.heads == ("features", "logits")
    assert (extractor.name, extractor.dim) == (name, features.shape[1])
    assert {values.dtype for values in found.values()} == {np.dtype(np.float32)}
    np.testing.assert_allclose(found["features"], features.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["logits"], logits.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", list(CLASSIFIERS))
def test_an_images_features_depend_on_nothing_but_the_image(name: str, weights: dict[str, Path]) -> None:
    extractor = load_extractor(name, weights=weights[name], batch_size=5)
    images = pictures(12, CLASSIFIERS[name].image_shape)
    together = extractor.extract(images)["features"]
    np.testing.assert_array_equal(extractor.extract(images[3:11])["features"], together[3:11])
    np.testing.assert_array_equal(extractor.extract(images[7:8])["features"], together[7:8])
    other_batch = load_extractor(name, weights=weights[name], batch_size=3)
    np.testing.assert_allclose(other_batch.extract(images)["features"], together, rtol=1e-4, atol=1e-5)


def test_every_option_that_decides_a_number_is_in_the_fingerprint(weights: dict[str, Path], tmp_path: Path) -> None:
    first = load_extractor("mnistnet", weights=weights["mnistnet"])
    assert first.fingerprint == load_extractor("mnistnet", weights=weights["mnistnet"]).fingerprint
    other = tmp_path / "other.safetensors"
    torch.manual_seed(99)
    save_file(Classifier(CLASSIFIERS["mnistnet"]).state_dict(), other)
    sha256 = hashlib.sha256(other.read_bytes()).hexdigest()
    other.with_suffix(".json").write_text(json.dumps({"sha256": sha256}))
    changed = [
        load_extractor("mnistnet", weights=other),
        load_extractor("mnistnet", weights=weights["mnistnet"], batch_size=7),
        load_extractor("mnistnet", weights=weights["mnistnet"], dtype="float64"),
        load_extractor("cifar10net", weights=weights["cifar10net"]),
    ]
    prints = [json.dumps(dict(e.fingerprint or {}), sort_keys=True) for e in (first, *changed)]
    assert len(set(prints)) == 5
    assert changed[0].protocol != first.protocol
    digit = pictures(1, (28, 28, 1))
    assert not np.array_equal(changed[0].extract(digit)["features"], first.extract(digit)["features"])


def test_float64_reaches_the_network(weights: dict[str, Path]) -> None:
    seen: set[torch.dtype] = set()
    images = pictures(3, (28, 28, 1))
    found = {}
    for dtype in ("float32", "float64"):
        extractor = load_extractor("mnistnet", weights=weights["mnistnet"], dtype=dtype, batch_size=3)
        hook = lambda _, inputs, out: seen.update({inputs[0].dtype, out.dtype})
        for layer in extractor.network.modules():  # type: ignore[attr-defined]
            if isinstance(layer, nn.Conv2d):
                layer.register_forward_hook(hook)
        found[dtype] = extractor.extract(images)["features"]
        assert seen == {getattr(torch, dtype)}
        assert found[dtype].dtype == np.dtype(dtype)
        seen.clear()
    assert 0 < np.abs(found["float64"] - found["float32"]).max() < 1e-4


def test_arithmetic_is_exact_inside_and_as_before_outside(
    weights: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    extractor = load_extractor("mnistnet", weights=weights["mnistnet"])
    look = lambda *_: seen.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
    extractor.network.linear.register_forward_hook(look)  # type: ignore[attr-defined]
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        extractor.extract(pictures(1, (28, 28, 1)))
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
    assert seen == [("highest", False)]
    with pytest.raises(KeyError), exact_arithmetic():
        raise KeyError
    assert torch.get_float32_matmul_precision() == before


def test_a_batch_that_does_not_fit_is_one_line(weights: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    extractor = load_extractor("mnistnet", weights=weights["mnistnet"], batch_size=64)

    def full(_: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")

    monkeypatch.setattr(extractor.network, "forward", full)  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="--batch-size 64: mnistnet on cpu has no memory for it") as refused:
        extractor.extract(pictures(1, (28, 28, 1)))
    one_line(refused)


def test_padded_digits_are_cropped_back(weights: dict[str, Path]) -> None:
    extractor = load_extractor("mnistnet", weights=weights["mnistnet"], batch_size=3)
    digits = pictures(3, (28, 28, 1))
    padded = np.pad(digits, ((0, 0), (2, 2), (2, 2), (0, 0)))
    np.testing.assert_array_equal(extractor.extract(padded)["logits"], extractor.extract(digits)["logits"])
    with pytest.raises(UserError, match=r"mnistnet takes grey .* found 32x32x3; of stacked digits") as refused:
        extractor.extract(pictures(2, (32, 32, 3)))
    one_line(refused)


def test_colours_of_another_size_take_the_one_resize_path(weights: dict[str, Path]) -> None:
    extractor = load_extractor("cifar10net", weights=weights["cifar10net"], batch_size=2)
    large = pictures(2, (64, 48, 3))
    small = np.stack([np.asarray(Image.fromarray(x).resize((32, 32), Image.Resampling.BILINEAR)) for x in large])
    np.testing.assert_array_equal(extractor.extract(large)["features"], extractor.extract(small)["features"])
    with pytest.raises(UserError, match="takes RGB images, found grey"):
        extractor.extract(pictures(2, (32, 32, 1)))


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 32, 32, 3), np.float32),
        np.zeros((32, 32, 3), np.uint8),
        np.zeros((2, 3, 32, 32), np.uint8),
        np.zeros((0, 32, 32, 3), np.uint8),
    ],
)
def test_what_is_no_image_is_refused(images: np.ndarray, weights: dict[str, Path]) -> None:
    with pytest.raises(UserError, match=r"takes uint8 images \(n, H, W, 1 or 3\), at least one; found"):
        load_extractor("cifar10net", weights=weights["cifar10net"]).extract(images)


def test_unknown_names_and_options_are_refused(weights: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="Did you mean 'cifar10net'"):
        load_extractor("cifar10-net")
    for options, message in (
        ({"batch_size": 0}, "--batch-size 0"),
        ({"dtype": "float16"}, "--dtype float16"),
        ({"device": "cuda:99"}, "--device cuda:99: cannot be used"),
        ({"device": "gpu"}, "--device gpu: cannot be used"),
        ({"resize": "legacy_pytorch"}, "--resize legacy_pytorch: has no effect on the features of mnistnet"),
    ):
        with pytest.raises(UserError, match=message) as refused:
            load_extractor("mnistnet", **{"weights": weights["mnistnet"], **options})  # type: ignore[arg-type]
        one_line(refused)


def test_weights_of_another_network_are_refused(weights: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needed weights of mnistnet") as refused:
        load_extractor("mnistnet", weights=weights["cifar10net"])
    assert str(weights["cifar10net"]) in one_line(refused)
    junk = tmp_path / "junk.safetensors"
    junk.write_bytes(b"junk")
    junk.with_suffix(".json").write_text(json.dumps({"sha256": hashlib.sha256(b"junk").hexdigest()}))
    with pytest.raises(UserError, match="needed weights of mnistnet"):
        load_extractor("mnistnet", weights=junk)


def test_listing_extractors_costs_no_torch() -> None:
    code = "import sys, evaluators.features as f; print(len(f.EXTRACTORS)); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, str(len(EXTRACTORS)))


@pytest.mark.parametrize(
    ("metric", "extractor", "name"),
    [
        ("fd", "inception", "fid"),
        ("fd_infinity", "inception", "fid_infinity"),
        ("kd", "inception", "kid"),
        ("is", "inception", "is"),
        ("sfid", "inception", "sfid"),
        ("precision", "inception", "precision"),
        ("fd", "cifar10net", "fd_cifar10net"),
        ("kd", "dinov2_vitb14", "kd_dinov2_vitb14"),
        ("recall", "mnistnet", "recall_mnistnet"),
        ("fd", "inception-0123abcd", "fd_inception-0123abcd"),
        ("sfid", "inception-0123abcd", "sfd_inception-0123abcd"),
        ("fd", "mine.inception", "fd_mine.inception"),
    ],
)
def test_only_inceptions_distances_are_called_fid(metric: str, extractor: str, name: str) -> None:
    assert metric_name(metric, extractor) == name


# --- the user's own ---------------------------------------------------------------------------------------------------

OWN = """
import numpy as np
calls = []
def means(images):
    calls.append(len(images))
    return images.mean((1, 2))
def kept(images):
    return images.mean((1, 2))
kept.fingerprint = {"weights": "1234"}
def flat(images): return images.mean((1, 2, 3))
def few(images): return images.mean((1, 2))[:1]
def words(images): return np.full((len(images), 2), "a")
def changing(images): return np.zeros((len(images), len(images)))
def broken(images): raise ValueError("out of ideas\\nand lines")
def nothing(images): return None
number = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Extractor]:
    (tmp_path / "own_features.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_features", raising=False)
    return lambda name: load_extractor(f"own_features:{name}", batch_size=4)


def test_own_features_are_those_of_the_callable(own: Callable[[str], Extractor]) -> None:
    extractor = own("means")
    assert (extractor.name, extractor.heads, extractor.dim) == ("own_features.means", ("features",), None)
    images = pictures(10, (8, 8, 3))
    found = extractor.extract(images)
    assert list(found) == ["features"]
    assert found["features"].dtype == np.float32
    np.testing.assert_allclose(found["features"], images.mean((1, 2)), rtol=1e-6)
    assert extractor.dim == 3
    assert sys.modules["own_features"].calls == [4, 4, 2]


def test_own_features_are_kept_between_runs_only_when_they_say_what_they_are(own: Callable[[str], Extractor]) -> None:
    assert own("means").fingerprint is None
    found = own("kept")
    assert found.fingerprint is not None
    assert found.fingerprint["fingerprint"] == {"weights": "1234"}
    assert len(found.fingerprint["source"]) == 64


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("flat", r"own_features:flat: returned float64 \(4,\), needed real numbers \(4, D\)"),
        ("few", r"own_features:few: returned float64 \(1, 3\)"),
        ("words", r"own_features:words: returned <U1"),
        ("nothing", r"own_features:nothing: returned object"),
        ("changing", r"own_features:changing: returned float64 \(2, 2\), needed real numbers \(2, 4\)"),
        ("broken", r"own_features:broken: raised ValueError: out of ideas and lines"),
    ],
)
def test_what_an_own_callable_does_wrong_is_said_with_its_name(
    name: str, message: str, own: Callable[[str], Extractor]
) -> None:
    extractor = own(name)
    with pytest.raises(UserError, match=message) as refused:
        extractor.extract(pictures(6, (8, 8, 3)))
    one_line(refused)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("no_such_module_at_all:f", "PYTHONPATH"),
        ("own_features:absent", "absent.*needed module:callable"),
        ("own_features:number", "found int, needed a callable"),
        ("own_features:", "needed module:callable"),
        (":f", "needed module:callable"),
    ],
)
def test_an_own_callable_that_cannot_be_had_is_refused(
    spec: str, message: str, own: Callable[[str], Extractor]
) -> None:
    with pytest.raises(UserError, match=message) as refused:
        load_extractor(spec)
    assert spec in one_line(refused)


def test_options_that_an_own_callable_would_not_hear_of_are_refused(own: Callable[[str], Extractor]) -> None:
    with pytest.raises(UserError, match="--dtype float64: has no effect"):
        load_extractor("own_features:means", dtype="float64")


# --- DINOv2 -----------------------------------------------------------------------------------------------------------


class Dino(nn.Module):
    """In the place of the vision transformer: the means of the three channels, many times."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(768))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[1:] == (3, 224, 224)
        return x.mean((2, 3)).repeat(1, 256) * self.scale


def test_dinov2_gets_normalised_images_of_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cleanfid")
    asked = []
    monkeypatch.setattr(torch.hub, "load", lambda *a, **k: asked.append((a, k)) or Dino())
    extractor = load_extractor("dinov2_vitb14", batch_size=2)
    assert asked[0][0] == ("facebookresearch/dinov2", "dinov2_vitb14")
    images = np.stack([np.full((40, 40, 3), level, np.uint8) for level in (0, 51, 255)])
    found = extractor.extract(images)["features"]
    assert found.shape == (3, 768)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    for row, level in zip(found, (0, 0.2, 1), strict=True):
        np.testing.assert_allclose(row[:3], (level - mean) / std, rtol=1e-4)
    assert extractor.heads == ("features",)
    assert extractor.fingerprint is not None
    assert extractor.fingerprint["weights"] == hash_of_state(Dino())
    other = Dino()
    other.scale.data[5] = 2
    assert hash_of_state(other) != hash_of_state(Dino())
    grey = extractor.extract(images[..., :1])["features"]
    np.testing.assert_array_equal(grey, found)


def test_dinov2_without_a_network_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> nn.Module:
        raise OSError("<urlopen error [Errno -3] Temporary failure in name resolution>")

    monkeypatch.setattr(torch.hub, "load", unreachable)
    with pytest.raises(DataUnavailable, match=r"dinov2_vits14: torch.hub cannot load .* name resolution") as refused:
        load_extractor("dinov2_vits14")
    assert "TORCH_HOME" in one_line(refused)
    with pytest.raises(UserError, match="--resize legacy_pytorch: has no effect"):
        load_extractor("dinov2_vits14", resize="legacy_pytorch")
