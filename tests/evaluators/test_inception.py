"""Inception features from pixels on: equal to those of clean-fid, pytorch-fid and torch-fidelity with the same (random) weights."""

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from evaluators.features import inception as module
from evaluators.features import load_extractor
from evaluators.features.inception import HEADS, RESIZES, fid_inception, resize_as_tensorflow1
from evaluators.features.network import NetworkExtractor
from evaluators.features.summary import summarise
from evaluators.metrics.frechet import frechet_distance, frechet_distance_of_features
from evaluators.metrics.inception_score import inception_score_estimate
from vaebm.data import DataUnavailable
from vaebm.errors import UserError

pytest.importorskip("cleanfid")
# The networks agree to the rounding of float32; features are of order 1 and differ between two images by a few hundredths.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict of the network at random, scaled so that its depth neither swallows nor blows up a signal."""
    generator = torch.Generator().manual_seed(0)
    network = fid_inception()
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.normal_(0, (2 / layer.weight[0].numel()) ** 0.5, generator=generator)
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.1, generator=generator)
                layer.running_var.uniform_(0.5, 1.5, generator=generator)
                layer.weight.uniform_(0.8, 1.2, generator=generator)
                layer.bias.normal_(0, 0.1, generator=generator)
        network.get_submodule("fc").get_parameter("bias").normal_(0, 3, generator=generator)
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def extractors(weights: Path) -> dict[str, NetworkExtractor]:
    return {mode: load_extractor("inception", weights=weights, resize=mode, batch_size=1) for mode in RESIZES}


def pictures(n: int, side: int, seed: int = 0) -> np.ndarray:
    """Coarse blobs and fine noise, so that every resize filter has something to show."""
    rng = np.random.default_rng([seed, side])
    coarse = rng.uniform(0, 255, (n, 4, 4, 3)).repeat(side // 4, 1).repeat(side // 4, 2)
    return (0.7 * coarse + 0.3 * rng.uniform(0, 255, (n, side, side, 3))).astype(np.uint8)


def folder_of(images: np.ndarray, folder: Path) -> Path:
    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i:05d}.png")
    return folder


def torch_fidelity_network(weights: Path, heads: list[str]) -> nn.Module:
    fidelity = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    return fidelity.FeatureExtractorInceptionV3("inception", heads, feature_extractor_weights_path=str(weights))


class Traced(nn.Module):
    """In the place of the scripted network that clean-fid downloads: the same interface around torch-fidelity's own network."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        stages = [stage for name, stage in network.named_children() if name != "fc"]
        self.layers = nn.Sequential(*stages)

    def forward(self, x: torch.Tensor, return_features: bool) -> torch.Tensor:
        assert return_features
        compat = pytest.importorskip("torch_fidelity.interpolate_compat_tensorflow")
        x = compat.interpolate_bilinear_2d_like_tensorflow1x(x, size=(299, 299), align_corners=False)
        return self.layers((x - 128) / 128)


@pytest.fixture(scope="module")
def clean_fid_models(weights: Path) -> dict[str, Callable]:
    """clean-fid's feature extractor of each mode, with our weights where it would download some."""
    from cleanfid import features, inception_pytorch, inception_torchscript

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inception_pytorch, "load_state_dict_from_url", lambda *_, **__: torch.load(weights))
        patch.setattr(inception_torchscript, "check_download_inception", lambda **_: None)
        traced = Traced(torch_fidelity_network(weights, ["2048"]))
        patch.setattr(torch.jit, "load", lambda _: traced)
        return {m: features.build_feature_extractor(m, torch.device("cpu"), use_dataparallel=False) for m in RESIZES}


@pytest.mark.parametrize("side", [32, 64])
@pytest.mark.parametrize("mode", RESIZES)
def test_features_equal_clean_fid_from_a_file_on(
    mode: str, side: int, extractors: dict[str, NetworkExtractor], clean_fid_models: dict[str, Callable], tmp_path: Path
) -> None:
    image = pictures(1, side)
    ours = extractors[mode].extract(image)["features"]
    found = clean_fid_features(folder_of(image, tmp_path / "png"), clean_fid_models[mode], mode)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, found, **CLOSE)


def clean_fid_features(folder: Path, model: Callable, mode: str) -> np.ndarray:
    from cleanfid import fid

    settings = {"num_workers": 0, "batch_size": 1, "device": torch.device("cpu"), "mode": mode, "verbose": False}
    with warnings.catch_warnings():
        return fid.get_folder_features(str(folder), model=model, **settings)


def test_features_equal_pytorch_fid_from_files_on(
    extractors: dict[str, NetworkExtractor], weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = pytest.importorskip("pytorch_fid.inception")
    score = pytest.importorskip("pytorch_fid.fid_score")
    monkeypatch.setattr(peer, "load_state_dict_from_url", lambda *_, **__: torch.load(weights))
    image = pictures(1, 32)
    files = list(folder_of(image, tmp_path / "png").iterdir())
    found = score.get_activations(files, peer.InceptionV3([3]).eval(), batch_size=1, device="cpu", num_workers=0)
    np.testing.assert_allclose(extractors["legacy_pytorch"].extract(image)["features"], found, **CLOSE)


def test_all_heads_equal_torch_fidelity(extractors: dict[str, NetworkExtractor], weights: Path) -> None:
    image = pictures(1, 32)
    peer = torch_fidelity_network(weights, ["2048", "logits_unbiased"])
    mixed_6_conv: list[torch.Tensor] = []
    peer.get_submodule("Mixed_6d.branch1x1").register_forward_hook(lambda *parts: mixed_6_conv.append(parts[2].clone()))
    features, logits = peer(torch.from_numpy(image.transpose(0, 3, 1, 2).copy()))
    spatial = mixed_6_conv[0].permute(0, 2, 3, 1)[..., :7].reshape(1, -1)  # as TensorFlow lays it out
    ours = extractors["legacy_tensorflow"].extract(image)
    assert {head: values.shape[1] for head, values in ours.items()} == HEADS
    for head, found in {"features": features, "logits": logits, "spatial": spatial}.items():
        np.testing.assert_allclose(ours[head], found.numpy(), **CLOSE, err_msg=head)


@pytest.mark.slow
@pytest.mark.parametrize("mode", RESIZES)
def test_fid_of_two_folders_equals_the_peers(
    mode: str,
    extractors: dict[str, NetworkExtractor],
    clean_fid_models: dict[str, Callable],
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Six images a side. Peers work on 2048 x 2048 matrices of rank 5, whose null space leaves noise in their square roots."""
    sets = (pictures(6, 32), 255 - pictures(6, 32, seed=1) // 2)
    folders = [folder_of(images, tmp_path / str(i)) for i, images in enumerate(sets)]
    summaries = [summarise(images, extractors[mode]) for images in sets]
    (_, *one), (_, *two) = (summary.moments.statistics() for summary in summaries)
    ours = frechet_distance(*one, *two)
    from cleanfid import fid

    features = [clean_fid_features(folder, clean_fid_models[mode], mode) for folder in folders]
    assert ours == pytest.approx(frechet_distance_of_features(*features), rel=1e-7)  # their features, no null space
    peers = {"clean-fid": fid.fid_from_feats(*features)}
    if mode == "legacy_pytorch":
        inception = pytest.importorskip("pytorch_fid.inception")
        score = pytest.importorskip("pytorch_fid.fid_score")
        monkeypatch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: torch.load(weights))
        peers["pytorch-fid"] = score.calculate_fid_given_paths([str(f) for f in folders], 6, "cpu", 2048, num_workers=0)
    if mode == "legacy_tensorflow":
        fidelity = pytest.importorskip("torch_fidelity")
        found = fidelity.calculate_metrics(
            input1=str(folders[0]),
            input2=str(folders[1]),
            fid=True,
            isc=True,
            isc_splits=1,
            feature_extractor_weights_path=str(weights),
            cuda=False,
            batch_size=6,
            cache=False,
            save_cpu_ram=True,
            verbose=False,
        )
        peers["torch-fidelity"] = found["frechet_inception_distance"]
        assert summaries[0].classes is not None
        score_of_one = inception_score_estimate(summaries[0].classes).value
        assert score_of_one == pytest.approx(found["inception_score_mean"], rel=1e-6)
    assert peers == pytest.approx(dict.fromkeys(peers, ours), rel=5e-6)


def test_each_resize_mode_takes_effect_where_there_is_something_to_resize(
    extractors: dict[str, NetworkExtractor],
) -> None:
    images = pictures(2, 32)
    found = [extractors[mode].extract(images)["features"] for mode in RESIZES]
    spread = np.abs(found[0][0] - found[0][1]).mean()
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(found[a] - found[b]).mean() > max(0.02 * spread, 1e-3)
    assert len({extractors[mode].protocol["resize"] for mode in RESIZES}) == 3


def test_features_do_not_depend_on_the_other_images_of_a_batch(weights: Path) -> None:
    extractor = load_extractor("inception", weights=weights, batch_size=2)
    images = pictures(3, 32)
    together, shifted = extractor.extract(images), extractor.extract(images[1:])  # 0 1, 2 padded; 1 2
    for head, values in together.items():
        assert len(values) == 3
        np.testing.assert_array_equal(values[1:], shifted[head])


def test_float64_reaches_the_network(weights: Path, extractors: dict[str, NetworkExtractor]) -> None:
    double = load_extractor("inception", weights=weights, dtype="float64", batch_size=1)
    seen: set[torch.dtype] = set()
    for layer in double.network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda _, inputs, out: seen.update({inputs[0].dtype, out.dtype}))
    image = pictures(1, 32)
    fine, coarse = double.extract(image)["features"], extractors["clean"].extract(image)["features"]
    assert seen == {torch.float64}
    assert fine.dtype == np.float64
    assert 0 < np.abs(fine - coarse).max() < 1e-4 * np.abs(fine).max()
    assert double.fingerprint["dtype"] != extractors["clean"].fingerprint["dtype"]


def test_grey_images_are_three_equal_channels(extractors: dict[str, NetworkExtractor]) -> None:
    grey = pictures(1, 32)[..., :1]
    ours = extractors["clean"].extract(grey)["features"]
    np.testing.assert_array_equal(ours, extractors["clean"].extract(grey.repeat(3, axis=3))["features"])


@pytest.mark.parametrize("shape", [(32, 32), (64, 48), (299, 299), (600, 400), (1, 5)])
def test_tensorflow_resize_is_the_formula(shape: tuple[int, int]) -> None:
    x = np.random.default_rng(0).uniform(0, 255, shape)
    found = resize_as_tensorflow1(torch.from_numpy(x)[None, None])[0, 0].numpy()
    rows, columns = (np.arange(299) * n / 299 for n in shape)
    for i in (0, 1, 150, 297, 298):
        for j in (0, 2, 149, 298):
            r, c = int(rows[i] + 1e-9), int(columns[j] + 1e-9)
            a, b = rows[i] - r, columns[j] - c
            r1, c1 = min(r + 1, shape[0] - 1), min(c + 1, shape[1] - 1)
            exact = (1 - a) * ((1 - b) * x[r, c] + b * x[r, c1]) + a * ((1 - b) * x[r1, c] + b * x[r1, c1])
            assert found[i, j] == pytest.approx(exact, abs=0.05)


def test_resize_and_loading_leave_warnings_as_they_were(weights: Path) -> None:
    before = list(warnings.filters)
    load_extractor("inception", weights=weights, resize="legacy_pytorch")
    assert warnings.filters == before


def test_other_weights_are_not_called_fid(
    weights: Path, extractors: dict[str, NetworkExtractor], monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    other = extractors["clean"]
    assert other.name == f"inception-{sha256[:8]}"
    assert other.protocol["weights"] == f"sha256:{sha256[:8]}"
    monkeypatch.setattr(module, "SHA256", sha256)
    assert load_extractor("inception", weights=weights).name == "inception"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VAEBM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_weights_come_from_the_cache_folder_without_a_network(
    cache: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    monkeypatch.setattr(module, "SHA256", sha256)
    monkeypatch.setattr(module, "FILE", replace(module.FILE, known_hash=f"sha256:{sha256}"))
    cache.mkdir(parents=True)
    (cache / module.FILE.name).write_bytes(weights.read_bytes())
    assert load_extractor("inception", download=False).name == "inception"


def test_missing_weights_say_which_file_from_where_to_where(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="downloads are off") as refused:
        load_extractor("inception", download=False)
    assert all(part in one_line(refused) for part in (*module.FILE.urls[:1], str(cache), "--weights", "6726825d"))

    def unreachable(*_: object) -> Path:
        raise DataUnavailable("download failed, https://github.com: no network")

    monkeypatch.setattr(module, "fetch", unreachable)
    with pytest.raises(UserError, match="no network") as refused:
        load_extractor("inception")
    assert str(cache) in one_line(refused)


def test_a_kept_file_that_is_another_is_not_used(cache: Path, weights: Path) -> None:
    cache.mkdir(parents=True)
    (cache / module.FILE.name).write_bytes(weights.read_bytes())
    with pytest.raises(UserError, match="is not the known file") as refused:
        load_extractor("inception", download=False)
    one_line(refused)


def test_files_that_are_no_such_weights_are_refused(tmp_path: Path, weights: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_extractor("inception", weights=tmp_path / "nowhere.pth")
    path = tmp_path / "weights.pth"
    contents: dict[str, object] = {"wrong keys": {"a": torch.zeros(1)}, "a list": [1, 2]}
    for content in contents.values():
        torch.save(content, path)
        with pytest.raises(UserError, match="needed a state dict of the FID Inception") as refused:
            load_extractor("inception", weights=path)
        one_line(refused)
    for payload in (b"", b"no archive", weights.read_bytes()[:1000]):
        path.write_bytes(payload)
        with pytest.raises(UserError, match="cannot be read") as refused:
            load_extractor("inception", weights=path)
        one_line(refused)


def test_unknown_resize_mode_gets_a_suggestion(weights: Path) -> None:
    with pytest.raises(UserError, match="Did you mean 'legacy_tensorflow'"):
        load_extractor("inception", weights=weights, resize="legacy-tensorflow")
