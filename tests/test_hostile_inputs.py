"""Hostile and broken inputs through the front doors: one line, exit code 2, nothing run, nothing written elsewhere, and little memory."""

import io
import json
import os
import pickle
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pytest
from PIL import Image

import baselines.__main__
import benchmark
import leaderboards
import vaebm.__main__
from evaluators.inputs import ImageInput, read_input
from vaebm import cli

ROOT = Path(benchmark.__file__).parent
DOORS: dict[str, Callable[..., int]] = {
    "benchmark": benchmark.main,
    "board": benchmark.main,
    "vaebm": vaebm.__main__.main,
    "baselines": baselines.__main__.main,
}
CEILING = 384 * 2**20  # bytes by which the process may grow, docs/limits.md
SECONDS = 60  # after which an input is held to have stopped the run for ever


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Folders of their own, no network, no data; and no input may make a run wait for ever."""
    monkeypatch.delenv("VAEBM_DATA", raising=False)
    monkeypatch.setenv("VAEBM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "given").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.syspath_prepend(str(tmp_path / "given"))
    monkeypatch.delitem(sys.modules, "hostile_module", raising=False)

    def stop(*_: object) -> None:
        raise AssertionError(f"the run waited for more than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def tree(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Everything below a folder but what the run may write: kind, size and time."""
    found = {}
    for path in folder.rglob("*"):
        inside = path.relative_to(folder)
        if inside.parts[0] not in ("out", "cache"):
            about = path.lstat()
            found[str(inside)] = (about.st_mode, about.st_size, about.st_mtime_ns)
    return found


def _shown(warning: warnings.WarningMessage) -> bool:
    """Whether Python would print it."""
    return not issubclass(
        warning.category, DeprecationWarning | PendingDeprecationWarning | ImportWarning | ResourceWarning
    )


class Peak:
    """Growth of this process's memory, by the kernel's own account; None where it keeps none."""

    def __init__(self) -> None:
        try:
            Path("/proc/self/clear_refs").write_text("5")  # forget the highest so far
            self.before = self._read("VmRSS")
        except OSError:
            self.before = None

    def grown(self) -> int | None:
        return None if self.before is None else self._read("VmHWM") - self.before

    def _read(self, name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in hostile.SLOW else []) for name in hostile.CASES]
)
def test_it_is_refused_in_one_line(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = hostile.CASES[name](tmp_path / "given")
    arguments = command.arguments
    if command.door in ("benchmark", "board"):
        arguments = [*arguments, "--out", str(tmp_path / "out")]
    if command.door == "benchmark":
        arguments = [*arguments, "--cache", str(tmp_path / "cache")]
    before = tree(tmp_path)
    capfd.readouterr()
    peak = Peak()
    with warnings.catch_warnings(record=True) as warned:  # each would be lines on stderr
        warnings.simplefilter("always")
        code = cli.run(DOORS[command.door], arguments)
    grown = peak.grown()
    out, err = capfd.readouterr()
    assert code == 2, err
    assert [str(warning.message) for warning in warned if _shown(warning)] == []
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    assert " ".join(command.named.split())[:100] in lines[0]
    assert len(lines[0]) < 12_000
    assert tree(tmp_path) == before
    left = [path for path in (tmp_path / "out").rglob("*") if path.name != ".lock"]
    assert left == []
    assert grown is None or grown < CEILING, f"{grown / 2**20:.0f} MiB"


@pytest.mark.skipif(sys.platform != "linux", reason="a limit on the data of a process is Linux's")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("a zip bomb: 17 GB of zeros by its own account", marks=pytest.mark.slow),
        "to be converted: a file of torch.save that runs a shell",
    ],
)
def test_the_programs_themselves_refuse_it_with_little_memory(name: str, tmp_path: Path) -> None:
    command = hostile.CASES[name](tmp_path / "given")
    program = [str(ROOT / "benchmark.py")] if command.door == "benchmark" else ["-m", command.door]
    places = ["--out", str(tmp_path / "out"), "--cache", "none"] if command.door == "benchmark" else []
    before = tree(tmp_path)
    done = subprocess.run(
        [
            sys.executable,
            *program,
            *(word.replace("toy_features", "suite_bench") for word in command.arguments),
            *places,
        ],
        cwd=tmp_path / "here",
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        preexec_fn=limit_data,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert command.named in done.stderr
    assert tree(tmp_path) == before


def limit_data() -> None:
    """What a process may hold of its own, stacks and heap of all its threads included; mapped files do not count."""
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, (4 * 2**30, 4 * 2**30))


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
@pytest.mark.parametrize("place", ["a folder", "a file in it", "an array", "a card"])
def test_what_may_not_be_read_is_named(place: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    given = tmp_path / "given"
    path = {
        "a folder": lambda: hostile.folder(given / "x"),
        "a file in it": lambda: hostile.folder(given / "x") / "a.png",
        "an array": lambda: hostile.npy(given / "x.npy", hostile.RGB),
        "a card": lambda: hostile.glow(given).with_suffix(".json"),
    }[place]()
    command = (
        hostile.checkpoint(path.with_suffix(".safetensors")) if place == "a card" else hostile.samples(given / "x")
    )
    if place == "an array":
        command = hostile.samples(path)
    path.chmod(0)
    code = cli.run(benchmark.main, [*command.arguments, "--out", str(tmp_path / "out"), "--cache", "none"])
    path.chmod(0o700)
    assert code == 2
    assert path.name in capfd.readouterr().err


# --- the cache -------------------------------------------------------------------------------------------------------


def spoil_with(data: bytes) -> Callable[[Path], None]:
    return lambda path: (path.write_bytes(data), None)[1]


SPOILED: dict[str, Callable[[Path], None]] = {
    "nothing": spoil_with(b""),
    "noise": spoil_with(bytes(range(256)) * 9),
    "half of it": lambda path: os.truncate(path, path.stat().st_size // 2),
    "another array": lambda path: hostile.npy(path.with_suffix(".npy"), np.zeros(7)).replace(path),
    "a shape of 10^12": lambda path: (hostile.npy_header(path, hostile.header((10**12, 24))), None)[1],
    "a pickle that runs a shell": spoil_with(pickle.dumps(hostile.Evil())),
    "JSON nested deep": spoil_with(b"[" * 100_000),
}


def test_a_spoiled_cache_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    monkeypatch.setattr(leaderboards, "write_plots", lambda *_, **__: [])
    ok, other = (
        hostile.npy(tmp_path / "given" / "ok.npy", hostile.RGB),
        hostile.npy(tmp_path / "given" / "r.npy", hostile.RGB[::-1]),
    )
    arguments = hostile.generation("--samples", f"fine={ok}", "--reference", str(other), "--metrics", "kd")
    arguments += ["--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]

    def measured() -> list[Any]:
        assert cli.run(benchmark.main, arguments) == 0
        rows = json.loads((tmp_path / "out" / "generation.json").read_text())["measurements"]
        return [row["value"] for row in rows]

    first = measured()
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.suffix in (".json", ".npy")]
    assert len(kept) >= 4
    ways = list(SPOILED.values())
    for start in range(0, len(ways), len(kept)):  # every file in another way, until every way was taken
        for k, path in enumerate(kept):
            ways[(start + k) % len(ways)](path)
        capfd.readouterr()
        assert measured() == first
        assert "removed, to be made again" in capfd.readouterr().err
        assert not (tmp_path / "here" / hostile.OWNED).exists()


# --- odd but sound ---------------------------------------------------------------------------------------------------


def rotated(image: np.ndarray) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees when shown"
    return hostile.png(image, exif=exif)


def as_palette(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).quantize(4).save(stream, "PNG")
    return stream.getvalue()


GREYS = np.repeat(hostile.RGB[:, :, :, :1] // 128 * 255, 3, axis=3)  # two colours, which a palette keeps
ODD: dict[str, Callable[[Path], tuple[Path, np.ndarray]]] = {
    "Fortran's order": lambda t: (hostile.npy(t / "x.npy", np.asfortranarray(hostile.RGB)), hostile.RGB),
    "Fortran's order in a npz": lambda t: (
        hostile.npz(t / "x.npz", images=np.asfortranarray(hostile.RGB)),
        hostile.RGB,
    ),
    "a turn noted in EXIF, which no network's reader heeds": lambda t: (
        hostile.folder(t / "x", **{f"{k}__png": rotated(x) for k, x in zip("ab", hostile.RGB, strict=False)}),
        hostile.RGB[:2],
    ),
    "palettes": lambda t: (
        hostile.folder(t / "x", **{f"{k}__png": as_palette(x) for k, x in zip("ab", GREYS, strict=False)}),
        GREYS[:2],
    ),
    "other files beside pictures": lambda t: (hostile.folder(t / "x", x__txt=b"x", x__zip=b"PK"), hostile.RGB[:2]),
    "names of bytes that are no text": lambda t: (odd_names(t / "x"), hostile.RGB[:2]),
}


def odd_names(folder: Path) -> Path:
    for k, path in enumerate(sorted(hostile.folder(folder).iterdir())):
        os.rename(path, os.fsencode(folder) + b"/\xff\n%d.png" % k)
    return folder


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_but_sound_is_read(name: str, tmp_path: Path) -> None:
    path, expected = ODD[name](tmp_path / "given")
    found = read_input("mine", str(path))
    assert isinstance(found, ImageInput)
    np.testing.assert_array_equal(found.images, expected)


def test_there_are_enough_of_them() -> None:
    assert len(hostile.CASES) - len(hostile.SLOW) >= 100
