"""Full disks and folders that cannot be written: one line, exit code 2, what was made is kept, and the same command goes on."""

import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import benchmark
from baselines.load import SYSTEMS
from evaluators.result_file import check_destinations, read_results
from leaderboards import history_store
from leaderboards.files import names_of, write_all
from vaebm import cli
from vaebm.__main__ import main as vaebm
from vaebm.atomic import STALE, replace_together, write_atomically
from vaebm.data import load_images
from vaebm.errors import UserError
from vaebm.training import stages

ROOT = Path(__file__).parents[1]
BUNDLED = ROOT / "baselines" / "checkpoints"
ROOM = 20_000  # bytes: too few for any of the files below but the first small ones
OOD = ["--suite", "ood", "--systems", "glow", "--ood", "svhn", "--num-images", "20", "--no-progress", "--offline"]
MOUNT = "needs the right to mount a file system"


class Disk:
    """A file system in memory, of a size that can be changed."""

    def __init__(self, place: Path, size: int) -> None:
        self.place = place
        self._mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs")

    def _mount(self, *words: str) -> None:
        if subprocess.run(["mount", *words, str(self.place)], capture_output=True, check=False).returncode:
            pytest.skip(MOUNT)

    def remount(self, *options: str) -> None:
        self._mount("-o", ",".join(["remount", *options]))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Disk]]:
    place = tmp_path / "disk"
    place.mkdir()
    yield lambda size: Disk(place, size)
    subprocess.run(["umount", "-l", str(place)], capture_output=True, check=False)


@contextlib.contextmanager
def small_files(most: int = ROOM) -> Iterator[None]:
    """No file may become larger: what a full disk is like, without one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("VAEBM_DATA", raising=False)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Call a command line as a process would be; return its exit code and what it said on stderr."""

    def called(main: Callable, *words: object) -> tuple[int, str]:
        capsys.readouterr()
        code = cli.run(main, [str(word) for word in words])
        return code, capsys.readouterr().err

    return called


def told_in_one_line(ended: tuple[int, str], *parts: str) -> None:
    code, said = ended
    assert code == 2, said
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, said
    assert "Traceback" not in said
    for part in parts:
        assert part in errors[0]


def litter(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*") if path.name.endswith(".partial") or path.name == ".lock")


# --- the front door


def tables(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in ("ood.csv", "ood.md", "ood.tex")}


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("scored")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("VAEBM_DATA", raising=False)
        assert cli.run(benchmark.main, [*OOD, "--out", str(folder / "out"), "--cache", str(folder / "cache")]) == 0
    return folder


def test_where_no_result_fits_the_line_names_the_file_and_a_repeated_command_makes_it(
    scored: Path, call: Callable, tmp_path: Path
) -> None:
    run = [*OOD, "--out", tmp_path / "out", "--cache", scored / "cache"]
    with small_files():
        told_in_one_line(call(benchmark.main, *run), str(tmp_path / "out"), "File too large", "--out")
    assert not list(tmp_path.rglob("ood.json"))
    assert litter(tmp_path) == []
    assert call(benchmark.main, *run)[0] == 0
    assert tables(tmp_path / "out") == tables(scored / "out")


def test_where_no_score_fits_it_is_the_cache_that_is_named(
    call: Callable, tmp_path: Path, scored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = [*OOD, "--out", tmp_path / "out", "--cache", tmp_path / "cache"]
    with small_files(200):
        told_in_one_line(call(benchmark.main, *run), str(tmp_path / "cache"), "File too large", "--cache")
    assert litter(tmp_path) == []
    assert call(benchmark.main, *run)[0] == 0
    assert tables(tmp_path / "out") == tables(scored / "out")


@pytest.mark.parametrize("what", ["--out", "--cache"])
def test_a_disk_that_is_full_and_then_is_not(
    what: str, disk: Callable, scored: Path, call: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = disk({"--out": 12, "--cache": 3}[what] * 4096)  # pages: a file has one at least
    run = [*OOD, "--out", tmp_path / "disk" / "a" if what == "--out" else tmp_path / "out"]
    run += ["--cache", tmp_path / "disk" / "a" if what == "--cache" else scored / "cache"]
    told_in_one_line(call(benchmark.main, *run), str(tmp_path / "disk"), "No space left on device", what)
    assert litter(tmp_path) == []
    kept = [path for path in (tmp_path / "disk").rglob("*.json")]
    full.remount("size=64m")
    if what == "--cache":
        assert kept, "the first scores had room"
        counted = count_scored(monkeypatch)
        assert call(benchmark.main, *run)[0] == 0
        assert 0 < sum(counted) < 40, "what was kept was scored again"
    else:
        assert call(benchmark.main, *run)[0] == 0
    assert tables(tmp_path / "disk" / "a" if what == "--out" else tmp_path / "out") == tables(scored / "out")


def count_scored(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    counted: list[int] = []
    glow = SYSTEMS.load("glow")
    score = glow.score
    monkeypatch.setattr(glow, "score", lambda self, images: counted.append(len(images)) or score(self, images))
    return counted


@pytest.mark.parametrize("what", ["--out", "--cache"])
def test_a_folder_that_is_read_only_is_found_before_work(
    what: str, disk: Callable, call: Callable, tmp_path: Path, scored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(2**20).remount("ro")
    monkeypatch.setattr(SYSTEMS.load("glow"), "score", lambda *_: pytest.fail("scored before the folder was tried"))
    run = [*OOD, "--out", tmp_path / "out", "--cache", tmp_path / "cache", what, tmp_path / "disk"]
    told_in_one_line(call(benchmark.main, *run), str(tmp_path / "disk"), "Read-only file system", what)


def test_a_full_standard_output_is_an_error() -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    with open("/dev/full", "w") as full:
        command = [sys.executable, "benchmark.py", "--list", "suites"]
        ended = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    told_in_one_line((ended.returncode, ended.stderr), "No space left on device")
    assert ended.stderr.count("\n") == 1


# --- sampling and training


def sample(to: Path, n: int = 48) -> list[object]:
    checkpoint = next(BUNDLED.glob("vaebm-mini-cifar10.safetensors"))
    return ["sample", "--checkpoint", checkpoint, "--steps", 0, "--num-images", n, "--batch-size", 16, "--to", to]


@pytest.mark.parametrize("target", ["a.npz", "a.npy", "pngs/"])
def test_sampling_goes_on_when_there_is_room(target: str, disk: Callable, call: Callable, tmp_path: Path) -> None:
    full = disk(36 * 4096)  # for two shards of three
    place = f"{tmp_path}/disk/{target}"
    told_in_one_line(call(vaebm, *sample(place)), "--to", "No space left on device", "what was made is kept")
    kept = {path.name: path.stat().st_ino for path in (tmp_path / "disk").rglob("[0-9]*.npz")}
    assert 1 <= len(kept) <= 3
    assert litter(tmp_path) == []
    full.remount("size=8m")
    assert call(vaebm, *sample(place))[0] == 0
    assert not list((tmp_path / "disk").glob("*.unfinished"))
    assert call(vaebm, *sample(tmp_path / "b.npy"))[0] == 0
    images = np.load(tmp_path / "b.npy")
    if target == "pngs/":
        assert len(list((tmp_path / "disk" / "pngs").iterdir())) == len(images)
    else:
        made = np.load(place)
        assert (made if target.endswith("npy") else made["images"]).tobytes() == images.tobytes()


def test_samples_that_are_there_are_read_from_a_folder_that_is_read_only(
    disk: Callable, call: Callable, tmp_path: Path
) -> None:
    place = disk(2**22)
    assert call(vaebm, *sample(tmp_path / "disk" / "a.npz", 4))[0] == 0
    place.remount("ro")
    assert call(vaebm, *sample(tmp_path / "disk" / "a.npz", 4)) == (0, "")
    told_in_one_line(call(vaebm, *sample(tmp_path / "disk" / "b.npz", 4)), "--to", "b.npz", "Read-only file system")


TINY = "--nvae.channels_enc 4 --nvae.channels_dec 4 --nvae.latents_per_group 2 --nvae.groups_per_scale [1] "
TINY += "--validation 10 --vae.batch_size 4 --vae.steps 6 --vae_output.checkpoint_every 2 --vae_output.preview_every 0"


def test_training_says_that_its_disk_is_full_and_goes_on(
    call: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = load_images("cifar10", n=100)
    monkeypatch.setattr(stages, "load_images", lambda *_, **__: images)  # the training set is not bundled
    words = ["train", "vae", "--config", "mini-cifar10", "--no-progress", *TINY.split()]
    run = [*words, "--out", tmp_path / "run"]
    with small_files():
        told_in_one_line(call(vaebm, *run), str(tmp_path / "run"), "File too large", "--resume")
    assert litter(tmp_path) == []
    assert not (tmp_path / "run" / "checkpoint.pt").exists()
    assert call(vaebm, *run, "--resume")[0] == 0
    assert call(vaebm, *words, "--out", tmp_path / "whole")[0] == 0
    weights = [next((tmp_path / name).glob("*.safetensors")).read_bytes() for name in ("run", "whole")]
    assert weights[0] == weights[1]


# --- the writers by themselves

BIG = np.random.default_rng(0).integers(0, 256, 2**17, dtype=np.uint8)


def figure() -> object:
    from matplotlib.figure import Figure

    made = Figure()
    made.subplots().imshow(BIG[: 2**16].reshape(256, 256))
    return made


def opened(write: Callable) -> Callable[[Path], None]:
    def written(path: Path) -> None:
        with path.open("wb") as file:
            write(file)

    return written


WRITERS: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("x" * len(BIG)),
    "npz": opened(lambda file: np.savez(file, a=BIG)),
    "npy": opened(lambda file: np.save(file, BIG)),  # numpy's error has no number
    "torch": lambda path: torch.save({"a": torch.from_numpy(BIG)}, path),  # torch's is no OSError
    "figure": lambda path: figure().savefig(path, format="png", dpi=300),  # type: ignore[attr-defined]
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_of_file_is_whole_or_as_it_was_and_the_error_names_it(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with small_files(), pytest.raises(OSError, match="File too large") as refused:
        write_atomically(path, WRITERS[kind])
    assert refused.value.filename == str(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    write_atomically(path, WRITERS[kind])
    assert path.stat().st_size > ROOM


def test_an_error_that_is_not_the_disks_comes_through(tmp_path: Path) -> None:
    def broken(path: Path) -> None:
        path.write_text("half")
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        write_atomically(tmp_path / "file", broken)
    assert list(tmp_path.iterdir()) == []


def test_of_several_files_none_is_replaced_where_one_cannot_be_written(tmp_path: Path) -> None:
    old = {tmp_path / name: f"old {name}" for name in "abc"}
    for path, text in old.items():
        path.write_text(text)
    with small_files(), pytest.raises(UserError, match=r"--out .*File too large"):
        write_all({path: b"new" if path.name != "b" else BIG.tobytes() for path in old})
    (tmp_path / "d").mkdir()
    with pytest.raises(UserError, match="d is a folder"):
        write_all({**{path: b"new" for path in old}, tmp_path / "d": b"new"})
    assert {path: path.read_text() for path in old} == old
    assert litter(tmp_path) == []
    write_all({path: b"new" for path in old})
    assert {path.read_text() for path in old} == {"new"}


def test_two_processes_that_write_one_file_do_not_spoil_each_other(tmp_path: Path) -> None:
    path, inner = tmp_path / "file", []

    def slow(partial: Path) -> None:
        partial.write_text("first, ")
        write_atomically(path, lambda other: inner.append(other) or other.write_text("second"))
        assert path.read_text() == "second"
        with partial.open("a") as file:
            file.write("last")

    write_atomically(path, slow)
    assert path.read_text() == "first, last"
    assert list(tmp_path.iterdir()) == [path]


def test_what_killed_processes_left_is_removed_when_it_is_old(tmp_path: Path) -> None:
    names = {"old": f".{'0' * 32}.partial", "new": f".{'1' * 32}.partial", "not ours": "mine.partial"}
    for name in names.values():
        (tmp_path / name).write_text("")
    for kind in ("old", "not ours"):
        os.utime(tmp_path / names[kind], (0, 0))
    replace_together({tmp_path / "a": lambda partial: partial.write_text("a")})
    assert {path.name for path in tmp_path.iterdir()} == {"a", names["new"], names["not ours"]}
    assert STALE >= 60  # no writer waits that long between two writes


def test_the_history_is_as_it_was_where_a_run_does_not_fit(scored: Path, tmp_path: Path) -> None:
    results, path = read_results(scored / "out" / "ood.json"), tmp_path / "history.db"
    history_store.add(results, path)
    before = history_store.entries(path, "glow")
    later = [replace(results, created=f"{year}-01-01T00:00:00Z") for year in range(2030, 2060)]

    def all_later() -> None:
        for one in later:
            history_store.add(one, path)

    with small_files(path.stat().st_size), pytest.raises(UserError, match="could not be written whole"):
        all_later()
    assert history_store.entries(path, "glow")[: len(before)] == before


def test_a_folder_in_the_place_of_a_result_is_found_before_work(tmp_path: Path) -> None:
    check_destinations(tmp_path, names_of(["ood"]))
    (tmp_path / "ood.json").mkdir()
    with pytest.raises(UserError, match=r"ood\.json: cannot be written \(it is a folder\); choose another folder"):
        check_destinations(tmp_path, names_of(["modes", "ood"]))


def test_the_names_are_those_of_a_run(scored: Path) -> None:
    written = {path.name for path in (scored / "out").iterdir()}
    plots_and_own = {name for name in written if name.endswith(".png") or name == "ood_scores.npz"}
    assert written == {*names_of(["ood"]), *plots_and_own}
