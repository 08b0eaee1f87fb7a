"""Several processes, and several micro-batches, make the training that one process with the whole batch makes."""

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import TINY_ENERGY, TINY_NVAE, lively_nvae, tiny_images

from vaebm import parallel, reductions
from vaebm.errors import UserError
from vaebm.noise import seed_step
from vaebm.nvae import NVAE
from vaebm.training.ebm import EBMTask, EBMTraining
from vaebm.training.loop import Schedule, fit, restore
from vaebm.training.vae import VAETask, VAETraining

ROOT = Path(__file__).parents[2]
UPDATES = 4
# A gradient that is zero but for rounding (a bias in front of a BatchNorm) must not decide an update, hence the large eps.
VAE = VAETraining(
    steps=UPDATES,
    batch_size=8,
    warmup_steps=2,
    learning_rate=3e-3,
    eps=1e-3,
    clip_norm=100.0,
    kl_balance="official",
    spectral_weight=0.1,
    batch_norm_weight=0.1,
    regulariser_start=10.0,
)
EBM = EBMTraining(
    steps=UPDATES,
    batch_size=8,
    warmup_steps=0,
    learning_rate=1e-3,
    chain_steps=2,
    step_size=1e-2,
    noise=0.02,
    jitter=0.1,
    buffer_size=16,
    buffer_anneal=1,
    buffer_probability=0.9,
)
SCHEDULE = Schedule(UPDATES, log_every=1, checkpoint_every=2, preview_every=0)


def make(stage: str, accumulate: int = 1) -> VAETask | EBMTask:
    cpu = torch.device("cpu")
    if stage == "vae":
        seed_step(0, 0)
        return VAETask(NVAE(TINY_NVAE), tiny_images(), replace(VAE, accumulate=accumulate), 0, cpu)
    nvae = lively_nvae()
    seed_step(0, 0)
    return EBMTask(nvae, TINY_ENERGY, tiny_images(), replace(EBM, accumulate=accumulate), 0, cpu)


def curve(task: VAETask | EBMTask, updates: range = range(1, UPDATES + 1)) -> list[dict[str, float]]:
    found = []
    for step in updates:
        seed_step(5, step)
        found.append(task.step(step))
    return found


def weights(task: VAETask | EBMTask) -> dict[str, torch.Tensor]:
    return {
        name: value.clone()
        for name, value in (task.vae if isinstance(task, VAETask) else task.energy).state_dict().items()
    }


def assert_near(a: list[dict[str, float]], b: list[dict[str, float]]) -> None:
    for one, other in zip(a, b, strict=True):
        for name, value in one.items():
            assert other[name] == pytest.approx(value, rel=2e-4, abs=2e-5), name


def work(folder: Path) -> None:
    """What each process of the tests below does: both stages, a state saved by the loop, and a resumed run."""
    parallel.start("cpu")
    assert parallel.world_size() == 2
    results = {}
    for stage in ("vae", "ebm"):
        task = make(stage)
        results[stage] = {"curve": curve(task), "weights": weights(task)}
        fit(make(stage), folder / stage, SCHEDULE, seed=5, progress=False)
        resumed = make(stage)
        restore(folder / stage / "checkpoint.pt", resumed)
        more = curve(resumed, range(UPDATES + 1, UPDATES + 3))
        results[stage] |= {"resumed": more, "unbroken": curve(task, range(UPDATES + 1, UPDATES + 3))}
    results["gathered"] = reductions.gather(torch.tensor([[float(parallel.rank())]]))
    torch.save(results, folder / f"results.{parallel.rank()}")


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict]]:
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
    done = subprocess.run(
        [*command, "--master-port", str(port), __file__, str(folder)],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)]),
        },
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, [torch.load(folder / f"results.{rank}", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("stage", ["vae", "ebm"])
def test_two_processes_make_the_training_of_one(stage: str, two_processes: tuple[Path, list[dict]]) -> None:
    _, results = two_processes
    alone = make(stage)
    expected = curve(alone)
    for result in results:
        assert_near(expected, result[stage]["curve"])
    first, second = (result[stage]["weights"] for result in results)
    start = weights(make(stage))
    for name, value in weights(alone).items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], value, rtol=1e-3, atol=1e-4)
    assert any(not torch.equal(value, start[name]) for name, value in first.items())


@pytest.mark.parametrize("stage", ["vae", "ebm"])
def test_a_state_of_two_processes_goes_on_in_two_and_in_one(stage: str, two_processes: tuple[Path, list[dict]]) -> None:
    folder, results = two_processes
    assert results[0][stage]["curve"] != results[0][stage]["resumed"]
    alone = make(stage)
    assert restore(folder / stage / "checkpoint.pt", alone) == UPDATES
    expected = curve(alone, range(UPDATES + 1, UPDATES + 3))
    for result in results:
        assert result[stage]["resumed"] == result[stage]["unbroken"]  # to the last bit
        assert_near(expected, result[stage]["resumed"])
    if isinstance(alone, EBMTask):
        assert alone.buffer.stored[0].shape[:2] == (2, 8)
        assert (alone.buffer.stored[0].flatten(2).abs().sum(2) > 0).all()  # every lane came from its process


def test_gathering_keeps_the_order_of_the_processes(two_processes: tuple[Path, list[dict]]) -> None:
    for result in two_processes[1]:
        assert result["gathered"].flatten().tolist() == [0.0, 1.0]


@pytest.mark.parametrize("accumulate", [2, 4])
def test_micro_batches_make_the_same_energy(accumulate: int) -> None:
    whole, parts = make("ebm"), make("ebm", accumulate)
    assert_near(curve(whole), curve(parts))
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], value, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(whole.buffer.stored[0], parts.buffer.stored[0], rtol=1e-3, atol=1e-4)


def test_micro_batches_of_stage_one_average_their_gradients() -> None:
    """With BatchNorm in eval mode nothing but the sum's order is left of the parts."""
    values = []
    for accumulate in (1, 2):
        task = make("vae", accumulate)
        task.vae.eval()
        task.vae.train = lambda mode=True, vae=task.vae: vae  # type: ignore[method-assign]  stays in eval mode
        task.training = replace(task.training, kl_balance="off")
        values.append(curve(task))
    assert_near(*values)


@pytest.mark.parametrize(("stage", "flag"), [("vae", "vae.batch_size = 8"), ("ebm", "ebm.batch_size = 8")])
def test_a_batch_that_does_not_split_is_refused_by_its_flag(stage: str, flag: str) -> None:
    with pytest.raises(UserError, match=f"{flag}.*1 processes x 3 micro-batches"):
        make(stage, 3)


def test_alone_every_function_is_the_identity() -> None:
    x = torch.rand(3, 2)
    assert (parallel.world_size(), parallel.rank(), reductions.share(6)) == (1, 0, slice(0, 6))
    for function in (reductions.gather, reductions.sum_over_processes, reductions.mean_over_processes):
        assert torch.equal(function(x), x)
    assert parallel.start("cpu") == torch.device("cpu")


if __name__ == "__main__":
    torch.set_num_threads(1)
    work(Path(sys.argv[1]))
