"""The front door under torchrun: the rows and the bytes of one process, one voice, one error."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
RUN = ("--suite", "ood,generation", "--systems", "nvae", "--ood", "svhn", "--num-images", "48", "--batch-size", "8")
RUN = (*RUN, "--offline", "--no-progress", "--threads", "1")


def front_door(processes: int, out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    launcher = TORCHRUN if processes == 2 else ()
    command = [sys.executable, *launcher, str(ROOT / "benchmark.py"), *words, "--out", str(out)]
    return subprocess.run(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1", "VAEBM_DATA": ""},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def rows(out: Path, suite: str) -> list[dict[str, Any]]:
    found = json.loads((out / f"{suite}.json").read_text())["measurements"]
    for row in found:
        row["protocol"].pop("seconds_per_image", None)
    return found


def arrays(cache: Path) -> dict[str, str]:
    """Every array of the cache but the seconds: name -> hash of its bytes. Names hold a hash of the content, too."""
    files = (path for path in cache.rglob("*.npy") if "seconds" not in path.name)
    return {str(path.relative_to(cache)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[Path, subprocess.CompletedProcess[str]]]:
    found = {}
    for processes in (1, 2):
        folder = tmp_path_factory.mktemp(f"of{processes}")
        done = front_door(processes, folder / "out", *RUN, "--cache", str(folder / "cache"))
        assert done.returncode == 0, done.stderr[-3000:]
        found[processes] = folder, done
    return found


def test_two_processes_measure_what_one_does(both: dict[int, tuple[Path, Any]]) -> None:
    (alone, _), (shared, _) = both[1], both[2]
    for suite in ("ood", "generation"):
        assert rows(shared / "out", suite) == rows(alone / "out", suite)
        assert len(rows(alone / "out", suite)) > 10


def test_two_processes_leave_the_bytes_that_one_does(both: dict[int, tuple[Path, Any]]) -> None:
    (alone, _), (shared, _) = both[1], both[2]
    found = arrays(alone / "cache")
    assert {Path(name).parts[0] for name in found} == {"samples", "scores", "features"}
    assert arrays(shared / "cache") == found


def test_the_first_process_speaks_alone(both: dict[int, tuple[Path, Any]]) -> None:
    (alone, one), (shared, two) = both[1], both[2]
    untimed = lambda text: [line for line in text.splitlines() if "s/image" not in line]
    assert untimed(two.stdout) == untimed(one.stdout)
    assert two.stderr.count("rows in") == 2  # once per suite
    names = lambda out: {path.name for path in out.iterdir()}
    assert names(shared / "out") == names(alone / "out")


def test_without_a_cache_they_hand_the_rows_to_each_other(both: dict[int, tuple[Path, Any]], tmp_path: Path) -> None:
    done = front_door(2, tmp_path / "out", *RUN, "--cache", "none")
    assert done.returncode == 0, done.stderr[-3000:]
    for suite in ("ood", "generation"):
        assert rows(tmp_path / "out", suite) == rows(both[1][0] / "out", suite)


def test_a_users_mistake_ends_all_of_them(tmp_path: Path) -> None:
    broken = tmp_path / "scores.npz"
    broken.write_bytes(b"no scores")
    done = front_door(2, tmp_path / "out", *RUN, "--cache", "none", "--scores", f"mine={broken}")
    assert done.returncode != 0
    assert "error: " in done.stderr
    assert str(broken) in done.stderr
    assert 'benchmark.py", line' not in done.stderr  # no traceback of ours
    assert not (tmp_path / "out" / "ood.json").exists()
