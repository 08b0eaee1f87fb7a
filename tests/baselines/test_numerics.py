"""How systems compute: dtype, compilation, batch sizes, and one network under many recipes. Numbers stay what they were."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from baselines import common, numerics
from baselines.common import Adapter
from baselines.ddpm import DDPMSampling, DDPMSystem
from baselines.glow import Glow as GlowNetwork
from baselines.glow import GlowArchitecture, GlowSystem
from baselines.igebm import IGEBM, IGEBMArchitecture, IGEBMRecipe, IGEBMSystem
from baselines.lebm import LEBM, LEBMArchitecture, LEBMRecipe, LEBMSystem
from baselines.load import load_system
from baselines.ncsn import NCSN, NCSNArchitecture, NCSNSampling, NCSNSystem
from baselines.nvae import NVAESystem
from baselines.pixelcnn import PixelCNN, PixelCNNArchitecture, PixelCNNSystem
from baselines.short_run import ShortRunArchitecture, ShortRunNetwork, ShortRunRecipe, ShortRunSystem
from baselines.vaebm import VAEBMSystem
from evaluators.metrics.auroc import auroc
from vaebm.data import load_images
from vaebm.energy import EnergyConfig, EnergyNetwork
from vaebm.errors import UserError
from vaebm.model import VAEBM
from vaebm.nvae import NVAE, NVAEConfig

SHAPE = (8, 8, 3)
IMAGES = np.random.default_rng(0).integers(0, 256, (11, *SHAPE), dtype=np.uint8)
RECIPE = {
    **{"importance_samples": 1, "temperature": 1.0, "readjust_bn": 0, "steps": 2, "step_size": 1e-4},
    **{"target": "paper", "output": "mean", "postprocess": "clamp", "metropolis": False},
}
ABOUT: dict[str, Any] = {"size": "mini", "weights_hash": "w", "device": "cpu", "batch_size": 4, "seed": 0}


def _nvae() -> NVAE:
    small = {"channels_enc": 4, "channels_dec": 4, "latents_per_group": 2, "groups_per_scale": (1, 2)}
    cells = {"preprocess_cells": 1, "postprocess_cells": 1, "cells_per_group_enc": 1, "cells_per_group_dec": 1}
    return NVAE(NVAEConfig(image_size=8, **small, **cells))


def _vaebm() -> VAEBM:
    return VAEBM(_nvae(), EnergyNetwork(EnergyConfig(channels=4, blocks=((1, True), (2, False)))))


def _glow() -> GlowNetwork:
    glow = GlowNetwork(GlowArchitecture(SHAPE, levels=1, steps=2, width=4))
    for parameter in glow.parameters():  # couplings begin as the identity
        parameter.data += 0.03 * torch.randn_like(parameter)
    return glow


BUILDERS: dict[str, Callable[[], Any]] = {
    "nvae": lambda: NVAESystem(_nvae(), dict(RECIPE), **ABOUT),
    "vaebm": lambda: VAEBMSystem(_vaebm(), dict(RECIPE), **ABOUT),
    "igebm": lambda: IGEBMSystem(IGEBM(IGEBMArchitecture(SHAPE, width=4)), IGEBMRecipe(steps=2), **ABOUT),
    "short_run": lambda: ShortRunSystem(
        ShortRunNetwork(ShortRunArchitecture(SHAPE, width=4)), ShortRunRecipe(steps=2), **ABOUT
    ),
    "glow": lambda: GlowSystem(_glow(), **ABOUT),
    "lebm": lambda: LEBMSystem(
        LEBM(LEBMArchitecture(SHAPE, latent=3, width=4, prior_width=4)),
        LEBMRecipe(prior_steps=2, posterior_steps=2),
        **ABOUT,
    ),
    "pixelcnn": lambda: PixelCNNSystem(PixelCNN(PixelCNNArchitecture(SHAPE, 4, 1, 2)), **ABOUT),
    "ncsn": lambda: NCSNSystem(
        NCSN(NCSNArchitecture(SHAPE, width=4, levels=2)), NCSNSampling(steps_per_level=1), **ABOUT
    ),
}
SCORERS = [name for name in BUILDERS if name != "ncsn"]


def build(name: str, **attributes: Any) -> Any:
    torch.manual_seed(3)
    system = BUILDERS[name]()
    for key, value in attributes.items():
        setattr(system, key, value)
    return system


@pytest.fixture(autouse=True)
def fresh_graphs() -> Iterator[None]:
    yield
    torch._dynamo.reset()


# One network, many recipes


CHANGES = {
    "nvae": {"temperature": 0.5},
    "vaebm": {"steps": 1},
    "igebm": {"step_size": 50.0, "noise_scale": 0.5},
    "short_run": {"steps": 1},
    "glow": {"temperature": 0.1},
    "lebm": {"prior_step_size": 1.5},
    "pixelcnn": {"temperature": 0.3},
    "ncsn": {"step_lr": 1e-3},
}


@pytest.mark.parametrize("name", BUILDERS)
def test_a_changed_recipe_shares_the_network_and_leaves_the_old_one_alone(name: str) -> None:
    system = build(name, dataset="cifar10", sample_batch=4)
    before = system.sample([1, 2])
    other = system.with_recipe(**CHANGES[name])
    assert other.whole is system.whole
    assert all(a is b for a, b in zip(other.networks.values(), system.networks.values(), strict=True))
    assert other.recipe == {**system.recipe, **CHANGES[name]} != system.recipe
    kept = ("size", "dataset", "device", "batch_size", "sample_batch", "seed", "image_shape", "weights_hash")
    assert [getattr(other, name) for name in kept] == [getattr(system, name) for name in kept]
    assert (other.sample([1, 2]) != before).any()
    np.testing.assert_array_equal(system.sample([1, 2]), before)
    np.testing.assert_array_equal(other.with_recipe(**system.recipe).sample([1, 2]), before)


@pytest.mark.parametrize("name", BUILDERS)
def test_a_changed_recipe_is_that_of_a_system_built_with_it(name: str) -> None:
    """Fingerprint and protocol follow the recipe, and so does a score."""
    options = {"nvae": {"importance_samples": 3}, "vaebm": {"importance_samples": 3}, "igebm": {"score_noise": 0.2}}
    changes = options.get(name, CHANGES[name])
    changed, expected = build(name).with_recipe(**changes), build(name)
    if dataclasses.is_dataclass(getattr(expected, "settings", None)):
        expected.use(dataclasses.replace(expected.settings, **changes))
    else:
        expected.use({**expected.recipe, **changes})
    assert (changed.fingerprint, changed.protocol) == (expected.fingerprint, expected.protocol)
    if name in options:
        assert changed.fingerprint != build(name).fingerprint
        assert (changed.score(IMAGES) != build(name).score(IMAGES)).all()


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("vaebm", {"stepz": 1}, "unknown option 'stepz'. Did you mean 'steps'"),
        ("short_run", {"stepz": 1}, "unknown option 'stepz'. Did you mean 'steps'"),
        ("vaebm", {"steps": -1}, "vaebm with steps=-1: .*steps >= 0"),
        ("vaebm", {"target": "none"}, "unknown Langevin target 'none'"),
        ("vaebm", {"output": "meen"}, "Did you mean 'mean'"),
        ("vaebm", {"step_size": "large"}, "vaebm with step_size='large'"),
        ("nvae", {"importance_samples": 0}, "importance_samples 0, needed at least 1"),
        ("igebm", {"steps": -1}, "steps"),
        ("igebm", {"step_size": "large"}, "igebm with step_size='large'"),
        ("glow", {"temperature": -3.0}, "temperature"),
    ],
)
def test_a_wrong_recipe_is_refused_in_one_line(name: str, changes: dict[str, Any], said: str) -> None:
    system = build(name)
    recipe = dict(system.recipe)
    with pytest.raises(UserError, match=said) as error:
        system.with_recipe(**changes)
    assert "\n" not in str(error.value)
    assert system.recipe == recipe


def test_ddpm_refuses_more_steps_than_its_network_knows() -> None:
    pytest.importorskip("diffusers", reason="an optional extra")
    from test_ddpm import tiny

    system = DDPMSystem(tiny(), DDPMSampling(steps=4, vlb_steps=3))
    assert system.with_recipe(steps=2).settings.steps == 2
    with pytest.raises(UserError, match="needed at most"):
        system.with_recipe(steps=10**6)


def test_the_frozen_copies_of_a_vaebm_are_made_once_for_all_recipes() -> None:
    system = build("vaebm")
    one, other = system.with_recipe(steps=1), system.with_recipe(step_size=1e-3)
    assert one.sampler is other.sampler is system.sampler
    assert set(system.networks) == {"nvae", "energy"}
    assert system.networks["nvae"] is system.sampler.nvae is not system.model.nvae


def test_batchnorm_that_was_readjusted_for_one_temperature_is_not_used_at_another() -> None:
    system = build("nvae").with_recipe(readjust_bn=2, temperature=0.5)
    adjusted = system.networks["nvae"]
    assert adjusted is not system.nvae
    assert system.with_recipe(output="sample").networks["nvae"] is adjusted
    assert system.with_recipe(temperature=0.8).networks["nvae"] is not adjusted
    assert system.with_recipe(readjust_bn=0).networks["nvae"] is system.nvae


# Images drawn together


@pytest.mark.parametrize("name", BUILDERS)
def test_images_are_drawn_in_blocks_of_sample_batch_and_depend_on_seed_and_block_alone(name: str) -> None:
    system = build(name)
    sizes: list[int] = []
    method = "_draw" if name in ("vaebm", "nvae") else "draw"
    draw = getattr(system, method)
    setattr(system, method, lambda seeds: (sizes.append(len(seeds)), draw(seeds))[1])
    system.sample([5])
    assert sizes == [16]
    system.sample_batch = 3
    images = system.sample([4, 5, 6, 7])
    assert sizes[1:] == [3, 3]
    np.testing.assert_array_equal(system.sample([5]), images[1:2])


def test_no_memory_for_a_block_of_samples_is_a_line_that_names_the_flag() -> None:
    system = build("short_run")
    system.network = Greedy(system.network, 4)
    with pytest.raises(UserError, match="--sample-batch 16: no memory on cpu"):
        system.sample([0])
    system.sample_batch = 4
    assert system.sample([0]).shape == (1, *SHAPE)


def test_auto_draws_as_many_together_as_fit_and_measures_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fitting(run: Callable[[int], Any], device: Any, *, least: int, most: int) -> int:
        asked.append((least, most))
        run(8)
        return 64

    monkeypatch.setattr(numerics, "fitting_size", fitting)
    system = build("short_run").with_recipe(steps=50)
    calls = []
    system.network.register_forward_hook(lambda _net, given, _out: calls.append(len(given[0])))
    numerics.apply(system, sample_batch="auto")
    assert asked == [(16, 256)]
    assert calls == [8]
    assert system.sample_batch == 64
    assert system.settings.steps == 50
    for name in ("ncsn", "pixelcnn", "nvae", "vaebm"):
        numerics.apply(system := build(name), sample_batch="auto")
        assert system.sample_batch == 64


@pytest.mark.parametrize("wrong", [0, -1, "many", 2.5])
def test_an_impossible_sample_batch_is_refused(wrong: Any) -> None:
    with pytest.raises(UserError, match=f"--sample-batch {wrong}: needed at least 1, or auto"):
        numerics.apply(build("glow"), sample_batch=wrong)


# Images scored together


class Greedy(nn.Module):
    """A network on a device that has memory for ``most`` images."""

    def __init__(self, network: nn.Module, most: int) -> None:
        super().__init__()
        self.network, self.most = network, most

    @property
    def architecture(self) -> Any:
        return self.network.architecture

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.network(x)


def test_scores_survive_a_full_device_and_the_size_that_fitted_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    plain, greedy = build("short_run"), build("short_run", batch_size=8)
    greedy.network = Greedy(greedy.network, 3)
    np.testing.assert_allclose(greedy.score(IMAGES), plain.score(IMAGES), rtol=1e-5, atol=1e-6)
    assert greedy.batch_size == 2
    assert capsys.readouterr().err.count("--batch-size 8") == 1
    np.testing.assert_allclose(greedy.score_gradient_norm(IMAGES), plain.score_gradient_norm(IMAGES), rtol=1e-4)
    assert not capsys.readouterr().err
    greedy.network.most = 0
    with pytest.raises(UserError, match="--batch-size 2: no memory even for a single image"):
        greedy.score(IMAGES)


@pytest.mark.parametrize("name", SCORERS)
def test_auto_scores_alike_and_decides_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    decided = []

    def fitting(run: Callable[[int], Any], device: Any) -> int:
        run(2)
        decided.append(5)
        return 5

    monkeypatch.setattr(common, "fitting_size", fitting)
    many = np.concatenate([IMAGES, IMAGES[::-1]])
    expected = build(name).score(many)
    system = build(name, batch_size="auto")
    few = system.score(IMAGES)
    assert system.batch_size == "auto", "too few images to choose by"
    for found, wanted in ((few, expected[:11]), (system.score(many), expected), (system.score(many), expected)):
        assert np.abs(found - wanted).max() <= 1e-5 * np.abs(expected).max()
    assert (system.batch_size, decided) == (5, [5])


# dtype


def lowered(name: str, dtype: str) -> Any:
    system = build(name)
    numerics.apply(system, dtype=dtype)
    return system


@pytest.mark.parametrize("name", SCORERS)
def test_float32_is_what_it_was_and_says_nothing(name: str) -> None:
    plain, applied = build(name), lowered(name, "float32")
    assert applied.fingerprint == plain.fingerprint
    assert applied.arithmetic_facts == {}
    np.testing.assert_array_equal(applied.score(IMAGES), plain.score(IMAGES))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", BUILDERS)
def test_a_lower_dtype_is_used_inside_and_said_outside(name: str, dtype: str) -> None:
    plain, system = build(name), lowered(name, dtype)
    seen = set()
    for module in system.whole.modules():
        module.register_forward_hook(lambda _net, _given, out: seen.add(str(getattr(out, "dtype", None))))
    if name in SCORERS:
        scores, expected = system.score(IMAGES), plain.score(IMAGES)
        assert scores.dtype == np.float64
        assert (scores != expected).any()
        assert np.abs(scores - expected).max() <= 0.1 * np.abs(expected).max()
    norms, expected = system.score_gradient_norm(IMAGES), plain.score_gradient_norm(IMAGES)
    assert norms.dtype == np.float64
    np.testing.assert_allclose(norms, expected, rtol=0.3)
    assert f"torch.{dtype}" in seen
    assert system.fingerprint == {**plain.fingerprint, "dtype": dtype}
    assert not torch.is_autocast_enabled("cpu")
    assert system.sample([1]).dtype == np.uint8
    again = system.with_recipe(**CHANGES[name])
    assert again.fingerprint["dtype"] == dtype


@pytest.mark.parametrize("name", ["vaebm", "short_run", "pixelcnn", "ncsn"])
def test_samples_of_a_lower_dtype_are_near_those_of_float32_and_not_the_same(name: str) -> None:
    plain, system = build(name), lowered(name, "bfloat16")
    seeds = range(8)
    expected, found = plain.sample(seeds).astype(int), system.sample(seeds).astype(int)
    assert (found != expected).any()
    assert np.abs(found - expected).mean() < 12  # grey levels


@pytest.mark.parametrize(
    ("dtype", "said"),
    [
        ("bf16", "--dtype bf16: unknown. Did you mean 'bfloat16'|--dtype bf16: unknown"),
        ("float64", "--dtype float64: unknown"),
        ("tf32", "--dtype tf32: cpu has none"),
    ],
)
def test_a_dtype_that_is_not_there_is_refused(dtype: str, said: str) -> None:
    system = build("glow")
    with pytest.raises(UserError, match=said):
        numerics.apply(system, dtype=dtype)
    assert system.fingerprint == build("glow").fingerprint


def test_a_device_that_cannot_compute_in_it_is_asked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Tensor:
        raise RuntimeError('"conv" not implemented for "BFloat16"\nmore')

    monkeypatch.setattr(numerics.F, "conv2d", broken)
    with pytest.raises(
        UserError, match=r"--dtype bfloat16: cpu cannot compute in it .*not implemented.*; take float32"
    ):
        numerics.apply(build("glow"), dtype="bfloat16")


def test_the_ranking_of_a_lower_dtype_is_within_the_interval_of_float32() -> None:
    """AUROC of in-distribution against other images, by the bundled system whose pass is the shortest."""
    sets = [load_images(name, n=48).images for name in ("cifar10", "svhn")]
    plain = load_system("divergence_triangle")
    lower = load_system("divergence_triangle")
    numerics.apply(lower, dtype="bfloat16")
    a, b = ([system.score(images) for images in sets] for system in (plain, lower))
    rng = np.random.default_rng(0)
    draws = [auroc(*(rng.choice(scores, len(scores)) for scores in a)) for _ in range(300)]
    low, high = np.quantile(draws, [0.025, 0.975])
    assert low < high
    assert low <= auroc(*b) <= high
    assert auroc(*b) == pytest.approx(auroc(*a), abs=0.02)


# compile


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let torch trace graphs without a C++ compiler; return their sizes."""
    made: list[int] = []

    def backend(graph: Any, _inputs: Any) -> Any:
        made.append(len(graph.graph.nodes))
        return graph.forward

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **options: compile_(model, backend=backend, **options))
    return made


@pytest.mark.parametrize("name", ["vaebm", "igebm", "glow", "lebm"])
def test_scores_run_through_compiled_networks_and_samples_do_not_change(name: str, graphs: list[int]) -> None:
    plain, system = build(name), build(name)
    numerics.apply(system, compile=True)
    assert system.fingerprint == {**plain.fingerprint, "compile": True}
    graphs.clear()  # the probe's
    found, expected = system.score(IMAGES), plain.score(IMAGES)
    assert graphs, "nothing was compiled"
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    graphs.clear()
    np.testing.assert_array_equal(system.sample([1, 2]), plain.sample([1, 2]))
    assert not graphs, "on CPUs samples run as written"
    np.testing.assert_array_equal(system.score(IMAGES), found)
    assert not graphs, "nothing is compiled twice"
    assert system.with_recipe(**CHANGES[name]).fingerprint["compile"] is True


def test_a_copy_of_a_compiled_network_is_not_compiled() -> None:
    import copy

    network = numerics.compiled(build("nvae").nvae)
    cells = [part for part in network.dec_tower if part._compiled_call_impl is not None]
    assert len(cells) == len(network.dec_tower)
    assert all(part._compiled_call_impl is None for part in copy.deepcopy(network).modules())


@given(st.lists(st.integers(1, 23), max_size=5), st.integers(1, 23))
def test_compiled_networks_meet_few_sizes(counts: list[int], size: int) -> None:
    met = set()

    def twice(images: np.ndarray) -> tuple[np.ndarray, Tensor]:
        met.add(len(images))
        return 2 * images, torch.from_numpy(3 * images)

    filled = numerics.of_few_sizes(twice, size)
    for n in (min(count, size) for count in counts):
        doubled, tripled = filled(np.arange(n))
        assert doubled.tolist() == [2 * i for i in range(n)]
        assert tripled.tolist() == [3 * i for i in range(n)]
    assert met <= {size // 2**k for k in range(6)}


def test_without_a_compiler_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.exc import BackendCompilerFailed

    def broken(*_: Any, **__: Any) -> Any:
        def call(*_: Any) -> None:
            raise BackendCompilerFailed(lambda: None, RuntimeError("no C++\ncompiler"), None)  # type: ignore[call-arg]

        return call

    monkeypatch.setattr(torch, "compile", broken)
    system = build("glow")
    with pytest.raises(UserError, match=r"--compile: torch cannot compile a first function here .*C") as error:
        numerics.apply(system, compile=True)
    assert "\n" not in str(error.value)
    assert not system.compiled
    assert "compile" not in system.fingerprint


def test_a_network_that_cannot_be_compiled_is_a_line_that_names_the_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    def backend(*_: Any) -> Any:
        raise NotImplementedError("this convolution")

    system = build("short_run")
    numerics.compiled(system.network)
    system.network._compiled_call_impl = torch.compile(system.network._call_impl, backend=backend)
    system.compiled = True
    with pytest.raises(UserError, match=r"--compile: torch cannot compile short_run here .*this convolution"):
        system.score(IMAGES)


@pytest.mark.slow
def test_the_compilers_own_code_scores_alike() -> None:
    import shutil

    if not shutil.which("g++"):
        pytest.skip("needs a C++ compiler")
    plain, system = load_system("divergence_triangle"), load_system("divergence_triangle", compile=True)
    images = load_images("cifar10", n=120).images
    found, expected = system.score(images), plain.score(images)
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_every_system_here_computes_as_its_options_say() -> None:
    assert all(isinstance(build(name), Adapter) for name in BUILDERS)
