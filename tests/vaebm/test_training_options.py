"""Options of both trainings that came with the published settings: each takes effect."""

import math
from dataclasses import replace

import pytest
import torch
from tiny import TINY_ENERGY, TINY_NVAE, lively_nvae, tiny_images

from vaebm.noise import seed_step
from vaebm.nvae import NVAE
from vaebm.training.ebm import EBMTask, EBMTraining, pixel_statistics
from vaebm.training.precision import Precision
from vaebm.training.vae import VAETask, VAETraining

UPDATES = 3
VAE = VAETraining(
    steps=0,
    epochs=1,
    warmup_steps=0,
    warmup_epochs=0.2,
    batch_size=8,
    eps=1e-3,
    weight_decay=3e-4,
    kl_start=0.0,
    kl_floor=1e-4,
    kl_const=0.2,
    kl_anneal=0.9,
    kl_balance="official",
    spectral_weight=0.1,
    batch_norm_weight=0.1,
    regulariser_start=10.0,
    ema=0.0,
)
EBM = EBMTraining(
    steps=10,
    batch_size=8,
    warmup_steps=0,
    beta1=0.99,
    target="official",
    negatives="mean",
    clamp_mean=False,
    chain_steps=2,
    ema=0.0,
)


def trained(
    training: VAETraining | EBMTraining, device: str = "cpu"
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """The averaged weights after a few updates, and the last logged values."""
    nvae, place = lively_nvae(), torch.device(device)
    seed_step(0, 0)
    task: VAETask | EBMTask
    if isinstance(training, VAETraining):
        task = VAETask(NVAE(replace(TINY_NVAE, flows=1, bits=5)), tiny_images(80), training, 0, place)
    else:
        task = EBMTask(nvae, TINY_ENERGY, tiny_images(), training, 0, place)
    for step in range(1, UPDATES + 1):
        seed_step(5, step)
        values = task.step(step)
    return task.ema.shadow, values


@pytest.fixture(scope="module")
def base() -> dict[type, dict[str, torch.Tensor]]:
    return {type(training): trained(training)[0] for training in (VAE, EBM)}


@pytest.mark.parametrize(
    "training",
    [
        *(
            replace(VAE, **change)
            for change in (
                {"epochs": 2},
                {"learning_rate_min": 1e-3},
                {"warmup_epochs": 0.4},
                {"eps": 1.0},
                {"weight_decay": 1.0},
                {"clip_norm": 1e-2},
                {"kl_floor": 0.5},
                {"kl_const": 0.0},
                {"kl_balance": "size"},
                {"kl_balance": "off"},
                {"spectral_weight": 0.0},
                {"batch_norm_weight": 0.0},
                {"regulariser_start": 0.0},
                {"flip": False},
                {"precision": "bf16"},
                {"accumulate": 2},
            )
        ),
        *(
            replace(EBM, **change)
            for change in ({"data_init": False}, {"flip": False}, {"precision": "bf16"}, {"energy_l2": 0.1})
        ),
    ],
    ids=lambda training: ", ".join(
        f"{key}={value}"
        for key, value in vars(training).items()
        if value != getattr(VAE if isinstance(training, VAETraining) else EBM, key)
    ),
)
def test_option_takes_effect(training: VAETraining | EBMTraining, base: dict[type, dict[str, torch.Tensor]]) -> None:
    weights, values = trained(training)
    assert any(not torch.equal(value, weights[name]) for name, value in base[type(training)].items())
    assert all(torch.tensor(value).isfinite() for value in values.values())


@pytest.mark.parametrize("clamp", [True, False])
def test_mean_negatives_leave_the_range_of_images_unless_clamped(clamp: bool) -> None:
    task = EBMTask(lively_nvae(), TINY_ENERGY, tiny_images(), replace(EBM, clamp_mean=clamp), 0, torch.device("cpu"))
    nvae = task.model.nvae
    state = [torch.randn(64, *shape) for shape in task.model.state_shapes]
    with torch.no_grad():
        nvae.image_conditional[1].bias.fill_(0.9)
        mean = nvae.decode(state[1:]).distribution.mean
    assert mean.max() > 1
    torch.testing.assert_close(task._image(state), mean.clamp(0, 1) if clamp else mean)


def test_mixed_precision_stays_near_full_precision_and_keeps_its_weights_in_float32() -> None:
    for training in (VAE, EBM):
        _, full = trained(training)
        weights, half = trained(replace(training, precision="bf16"))
        name = "elbo" if isinstance(training, VAETraining) else "spectral"
        assert half[name] == pytest.approx(full[name], rel=0.05)
        assert {value.dtype for value in weights.values()} <= {torch.float32, torch.int64}


def test_loss_of_stage_one_is_its_formula_in_nats_per_image() -> None:
    _, values = trained(replace(VAE, kl_floor=1.0, kl_balance="off"))
    assert values["loss"] == pytest.approx(values["regulariser"] - values["elbo"], rel=1e-5)
    assert values["regulariser"] > 0


def test_pixel_statistics_are_those_of_all_pixels() -> None:
    x = torch.tensor([-0.5, 0.0, 0.5, 1.0]).view(2, 1, 1, 2)
    found = pixel_statistics("data", x)
    assert found == pytest.approx({"data_mean": 0.25, "data_std": x.std(correction=0).item(), "data_saturation": 0.75})


def test_an_overflow_of_float16_lowers_the_scale_and_leaves_the_update_out() -> None:
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    precision, resumed = (Precision("no", torch.device("cpu"), "flag") for _ in range(2))
    for one in (precision, resumed):  # the scaler itself also runs on a CPU
        one.name, one._scaler = "fp16", torch.amp.GradScaler("cpu", init_scale=1024.0)

    def update(factor: float) -> float:
        optimizer.zero_grad()
        precision.backward(factor * weight.sum())
        precision.unscale(optimizer)
        return precision.step(optimizer, weight.grad.norm())

    assert update(2.0) == pytest.approx(2.0)  # the norm is that of the loss, not of the scaled one
    assert weight.item() == pytest.approx(0.8)
    assert update(math.inf) == 0
    assert weight.item() == pytest.approx(0.8)
    assert precision.state_dict()["scale"] == 512
    resumed.load_state_dict(precision.state_dict())
    assert resumed.state_dict() == precision.state_dict()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("training", [VAE, EBM], ids=["vae", "ebm"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_on_a_gpu_stays_near_full_precision(
    training: VAETraining | EBMTraining, precision: str
) -> None:
    name = "elbo" if isinstance(training, VAETraining) else "spectral"
    _, full = trained(training, "cuda")
    _, half = trained(replace(training, precision=precision), "cuda")
    assert half[name] == pytest.approx(full[name], rel=0.05)
