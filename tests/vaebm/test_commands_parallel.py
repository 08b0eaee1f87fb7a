"""The commands under torchrun: the bytes and numbers of one process, mistakes said once, a killed process that is started again."""

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TINY_ENERGY, lively_nvae, tiny_images, unit_images
from torch import nn

from vaebm.__main__ import main as vaebm
from vaebm.checkpoints import save_checkpoint
from vaebm.cli import run
from vaebm.energy import EnergyNetwork, data_dependent_init
from vaebm.parallel import rank, start

ROOT = Path(__file__).parents[2]
N = 150  # several shards for each process, the last one not full


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny VAEBM, its NVAE and a folder of images."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(1)
    nvae, energy = lively_nvae(), EnergyNetwork(TINY_ENERGY)
    data_dependent_init(energy, unit_images(16))
    common = {"size": "tiny", "dataset": "own", "training": {}}
    card = {"kind": "nvae", "architecture": {"nvae": nvae.config.to_json()}, "sampling": {"temperature": 1.0}}
    save_checkpoint(folder / "nvae.safetensors", nn.ModuleDict({"nvae": nvae}).state_dict(), {**card, **common})
    sha256 = json.loads((folder / "nvae.json").read_text())["sha256"]
    card = {
        "kind": "vaebm",
        "architecture": {"energy": energy.config.to_json()},
        "sampling": {"steps": 2, "step_size": 0.05, "target": "paper"},
        "nvae": {"file": "nvae.safetensors", "sha256": sha256},
    }
    save_checkpoint(folder / "vaebm.safetensors", nn.ModuleDict({"energy": energy}).state_dict(), {**card, **common})
    (folder / "images").mkdir()
    for i, image in enumerate(tiny_images(21)):
        Image.fromarray(image).save(folder / "images" / f"{i:02d}.png")
    return folder


def torchrun(*command: object, restarts: int = 0) -> subprocess.Popen[str]:
    """Start two processes of a module or a script."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
    launch += ["--master-port", str(port), "--max-restarts", str(restarts), "--monitor-interval", "0.1"]
    return subprocess.Popen(
        [*launch, *map(str, command)],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)]),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class Ended(NamedTuple):
    """How a command ended in one of the processes."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def two(place: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Ended]]]:
    """All commands of the tests below, one after the other in the same two processes: their folder, and how they ended in each."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "file").write_text("")
    commands = {name: [str(part) for part in command(place, folder)] for name, command in COMMANDS.items()}
    process = torchrun(__file__, json.dumps(commands), folder)
    _, told = process.communicate(timeout=240)
    assert process.returncode == 0, told[-3000:]
    ended = [json.loads((folder / f"ended.{rank}").read_text()) for rank in range(2)]
    return folder, {name: [Ended(*one[name]) for one in ended] for name in commands}


def work(commands: dict[str, list[str]], folder: Path) -> None:
    """What each process does."""
    ended = {}
    for name, arguments in commands.items():
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run(vaebm, arguments)
        ended[name] = (code, out.getvalue(), err.getvalue())
    (folder / f"ended.{rank()}").write_text(json.dumps(ended))


def sampling(place: Path, to: object, *more: object) -> list[object]:
    return ["sample", "--checkpoint", place / "vaebm.safetensors", "--num-images", N, "--to", to, *more]


def likelihood(place: Path) -> list[object]:
    return [
        "likelihood",
        "--checkpoint",
        place / "nvae.safetensors",
        "--dataset",
        place / "images",
        "--json",
        "--batch-size",
        4,
    ]


def chains(place: Path, out: Path) -> list[object]:
    model, images = place / "vaebm.safetensors", place / "images"
    return ["chains", "--checkpoint", model, "--num-images", 37, "--dataset", images, "--out", out]


MISTAKES = {
    "a chain explodes": "not finite after",  # found by each process in its share
    "no place": "Not a directory",  # by the first one, when the others wait
    "no checkpoint": "no such file",  # by all
}
COMMANDS: dict[str, Callable[[Path, Path], list[object]]] = {
    "sample": lambda place, to: sampling(place, to / "a.npz", "--save-chains", to / "chains.npz"),
    "again": lambda place, to: sampling(place, to / "a.npz", "--save-chains", to / "chains.npz"),
    "likelihood": lambda place, _: likelihood(place),
    "chains": lambda place, to: chains(place, to / "chains"),
    "a chain explodes": lambda place, to: sampling(place, to / "b.npz", "--step-size", 1e30),
    "no place": lambda place, to: sampling(place, to / "file" / "b.npz"),
    "no checkpoint": lambda _, to: sampling(to / "none", to / "b.npz"),
}


def test_samples_have_the_bytes_of_one_process_and_one_process_speaks(
    place: Path, two: tuple[Path, dict[str, list[Ended]]], tmp_path: Path
) -> None:
    folder, ended = two
    assert vaebm([str(part) for part in COMMANDS["sample"](place, tmp_path)]) == 0
    for name in ("a.npz", "chains.npz"):
        alone, shared = np.load(tmp_path / name), np.load(folder / name)
        assert alone.files == shared.files
        for array in alone.files:
            assert alone[array].tobytes() == shared[array].tobytes(), array
    records = [json.loads((where / "a.npz.json").read_text()) for where in (tmp_path, folder)]
    assert records[0]["key"] == records[1]["key"]
    assert records[0]["images_sha256"] == records[1]["images_sha256"]
    first, second = ended["sample"]
    assert (first.code, first.out) == (0, f"{folder / 'a.npz'}\n")
    assert first.err.count(" 0%") == 1
    assert f"| {N}/{N} [" in first.err
    assert second == (0, "", "")
    assert ended["again"] == [(0, first.out, ""), (0, "", "")]  # it is there
    assert not (folder / "a.npz.unfinished").exists()


@pytest.mark.slow  # half a minute: two processes start twice
def test_a_killed_process_is_started_again_and_goes_on_from_the_shards(place: Path, tmp_path: Path) -> None:
    n, target = 320, tmp_path / "samples.npy"
    sample = ["sample", "--checkpoint", place / "vaebm.safetensors", "--num-images", n, "--batch-size", 16]
    sample += ["--steps", 6, "--to"]
    process = torchrun("-m", "vaebm", *sample, target, restarts=1)
    unfinished = tmp_path / "samples.npy.unfinished"
    deadline = time.monotonic() + 60
    while len(kept := list(unfinished.glob("*.npz"))) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    first = {path.name: path.stat().st_ino for path in kept}
    holder = (unfinished / ".lock").read_text()
    os.kill(int(holder.split()[1]), signal.SIGKILL)  # the first process, which holds the lock
    later: dict[str, int] = {}
    while process.poll() is None:
        later |= {path.name: inode(path) for path in unfinished.glob("*.npz")}
        time.sleep(0.005)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0, told[-3000:]
    assert {name: later[name] for name in first} == first, "a shard that was whole was drawn again"
    assert vaebm([*map(str, sample), f"{tmp_path}/one.npy", "--no-progress"]) == 0
    assert np.load(target).tobytes() == np.load(tmp_path / "one.npy").tobytes()
    assert "Traceback" not in told.replace("traceback : Signal", "")


def inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


def test_likelihood_has_the_numbers_of_one_process(
    place: Path, two: tuple[Path, dict[str, list[Ended]]], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = two[1]["likelihood"]
    assert vaebm([*map(str, likelihood(place)), "--no-progress"]) == 0
    assert json.loads(first.out) == json.loads(capsys.readouterr().out)
    assert "6/6" in first.err
    assert second == (0, "", "")


def test_chains_have_the_numbers_of_one_process(
    place: Path, two: tuple[Path, dict[str, list[Ended]]], tmp_path: Path
) -> None:
    folder, ended = two
    assert vaebm([str(part) for part in chains(place, tmp_path)]) == 0
    files = sorted(path.name for path in (folder / "chains").iterdir())
    assert files == ["chains.csv", "chains.json", "chains.png", "strip.png"]
    for name in ("chains.csv", "chains.json", "strip.png"):
        assert (folder / "chains" / name).read_bytes() == (tmp_path / name).read_bytes(), name
    first, second = ended["chains"]
    assert first.out == f"{folder / 'chains'}\n"
    assert first.err.count("37 chains of 2 steps") == 1
    assert second == (0, "", "")


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_reaches_all_processes_and_leaves_nothing(
    mistake: str, two: tuple[Path, dict[str, list[Ended]]]
) -> None:
    folder, ended = two
    first, second = ended[mistake]
    assert (first.code, second.code) == (2, 2)
    assert first.err.count("error: ") == 1
    assert MISTAKES[mistake] in first.err
    assert not [path for path in folder.iterdir() if path.name.startswith("b.")]
    assert (folder / "file").read_text() == ""


if __name__ == "__main__":
    start("cpu")
    work(json.loads(sys.argv[1]), Path(sys.argv[2]))
