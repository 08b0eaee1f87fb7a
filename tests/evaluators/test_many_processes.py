"""Several processes make what one process makes, to the last bit, and one that dies costs nothing that was finished."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from suite_bench import means

from evaluators.array_store import ArrayStore
from evaluators.features.custom import OwnExtractor
from evaluators.features.summary import FeatureSummary, summarise
from vaebm import parallel
from vaebm.errors import UserError

TOTAL, UNIT = 90, 4
KEY = {"what": "rows"}
LOG = "made"


def rows(start: int, stop: int) -> dict[str, np.ndarray]:
    i = np.arange(start, stop)
    return {"square": i**2, "pair": np.stack([i, -i], 1).astype(np.float32)}


def images(n: int = 700) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)


def noted(folder: Path, start: int, stop: int) -> dict[str, np.ndarray]:
    """Make rows and write down, in a file of this process and attempt, which ones."""
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    with (folder / f"{LOG}-{attempt}-{parallel.rank()}").open("a") as file:
        file.write(f"{start} {stop}\n")
    return rows(start, stop)


def told(folder: Path, attempt: int = 0) -> dict[int, list[tuple[int, int]]]:
    """rank -> spans that it made."""
    spans = lambda path: [(int(a), int(b)) for a, b in map(str.split, path.read_text().splitlines())]
    return {int(path.name.rsplit("-", 1)[1]): spans(path) for path in sorted(folder.glob(f"{LOG}-{attempt}-*"))}


def summary_arrays(found: FeatureSummary) -> dict[str, np.ndarray]:
    arrays = {f"moments.{name}": value for name, value in found.moments.to_arrays().items()}  # type: ignore[union-attr]
    assert found.features is not None
    return {**arrays, "features": found.features, "sha256": np.array(found.sha256)}


def worker(job: str, folder: Path) -> None:
    """What each process of a test runs; process 0 writes down what it got, and so does process 1."""
    parallel.start("cpu")
    rank = parallel.rank()
    store = ArrayStore(None if job in ("nowhere", "unequal units") else folder / "store")
    if job in ("folder", "nowhere"):
        found = store.compute(KEY, TOTAL, lambda a, b: noted(folder, a, b), chunk=20, unit=UNIT)
    elif job in ("summary", "summary nowhere"):
        cache = folder / "store" if job == "summary" else None
        extractor = OwnExtractor("toy:means", means, 50)
        found = summary_arrays(summarise(images(), extractor, keep_features=True, cache=cache, chunk=100))
    elif job == "unequal units":  # a batch was halved in one of them
        found = store.compute(KEY, TOTAL, lambda a, b: noted(folder, a, b), chunk=20, unit=UNIT + 3 * rank)
    elif job == "other work":
        try:
            store.compute({**KEY, "data": rank}, TOTAL, rows, chunk=20)
        except UserError as error:
            found = {"said": np.array(str(error))}
    elif job == "refused":

        def refusing(start: int, stop: int) -> dict[str, np.ndarray]:
            if start >= TOTAL // 2:
                raise UserError(f"row {TOTAL // 2} is not finite")
            return rows(start, stop)

        try:
            store.compute(KEY, TOTAL, refusing, chunk=20, unit=UNIT)
        except UserError as error:
            found = {"said": np.array(str(error))}
    elif job == "dies":

        def dying(start: int, stop: int) -> dict[str, np.ndarray]:
            if rank == 1 and start >= TOTAL // 2 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
                os.kill(os.getpid(), 9)
            return noted(folder, start, stop)

        found = store.compute(KEY, TOTAL, dying, chunk=20, unit=UNIT)
    np.savez(folder / f"found-{rank}.npz", **found)


def launch(job: str, folder: Path, processes: int = 2, *options: str) -> list[dict[str, np.ndarray]]:
    """Run :func:`worker` in several processes; what each of them got."""
    here = Path(__file__)
    paths = os.pathsep.join([str(here.parents[2]), str(here.parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *options]
    done = subprocess.run(
        [*command, str(here), job, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [dict(np.load(folder / f"found-{rank}.npz")) for rank in range(processes)]


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == np.asarray(array).dtype


@pytest.mark.parametrize("job", ["folder", "nowhere"])
def test_processes_share_the_rows_and_all_get_all_of_them(job: str, tmp_path: Path) -> None:
    alone = ArrayStore(None).compute(KEY, TOTAL, rows)
    for found in launch(job, tmp_path):
        assert_same(found, alone)
    shares = told(tmp_path)
    made = sorted(row for spans in shares.values() for start, stop in spans for row in range(start, stop))
    assert made == list(range(TOTAL))  # each row once
    lengths = {rank: sum(stop - start for start, stop in spans) for rank, spans in shares.items()}
    assert max(lengths.values()) <= 0.6 * TOTAL
    assert all(start % UNIT == 0 for spans in shares.values() for start, _ in spans)


def test_the_folder_holds_what_one_process_would_have_left(tmp_path: Path) -> None:
    launch("folder", tmp_path)
    store = ArrayStore(tmp_path / "alone")
    store.compute(KEY, TOTAL, rows)
    listed = lambda folder: {path.name for path in folder.rglob("*") if path.is_file()}
    assert listed(tmp_path / "store") == listed(tmp_path / "alone")
    # A later run finds all of it.
    never = lambda start, stop: pytest.fail(f"rows {start} to {stop} were there")
    assert_same(ArrayStore(tmp_path / "store").compute(KEY, TOTAL, never), rows(0, TOTAL))


def test_processes_go_on_where_one_process_was_stopped(tmp_path: Path) -> None:
    ArrayStore(tmp_path / "store").compute(KEY, 37, rows)
    for found in launch("folder", tmp_path):
        assert_same(found, rows(0, TOTAL))
    made = [row for spans in told(tmp_path).values() for start, stop in spans for row in range(start, stop)]
    assert sorted(made) == list(range(37, TOTAL))


@pytest.mark.parametrize("job", ["summary", "summary nowhere"])
def test_summaries_are_those_of_one_process_to_the_last_bit(job: str, tmp_path: Path) -> None:
    alone = summary_arrays(summarise(images(), OwnExtractor("toy:means", means, 50), keep_features=True, chunk=100))
    for found in launch(job, tmp_path):
        assert_same(found, alone)


def test_processes_that_disagree_on_the_size_of_a_batch_still_make_each_row(tmp_path: Path) -> None:
    for found in launch("unequal units", tmp_path):
        assert_same(found, rows(0, TOTAL))


def test_processes_at_different_work_say_so_and_do_not_wait_for_each_other(tmp_path: Path) -> None:
    for found in launch("other work", tmp_path):
        assert "measure different things" in str(found["said"])


def test_what_one_process_refuses_all_refuse(tmp_path: Path) -> None:
    for found in launch("refused", tmp_path):
        assert str(found["said"]) == f"row {TOTAL // 2} is not finite"


def test_a_process_that_dies_is_started_again_and_nothing_finished_is_made_twice(tmp_path: Path) -> None:
    for found in launch("dies", tmp_path, 2, "--max-restarts=1"):
        assert_same(found, rows(0, TOTAL))
    first, second = ([span for spans in told(tmp_path, i).values() for span in spans] for i in (0, 1))
    assert second  # it did die
    # The span that a process was making when the others were stopped may be made again; what had been written is not.
    kept = {row for start, stop in first for row in range(start, stop)}
    again = [span for span in second if span[0] in kept]
    assert len(again) <= 2
    assert {row for span in [*first, *second] for row in range(*span)} == set(range(TOTAL))


def test_alone_the_functions_for_several_are_plain_calls() -> None:
    assert parallel.on_main(lambda: 3) == parallel.main_first(lambda: 3) == 3
    assert parallel.together(lambda: "x") == ["x"]
    assert parallel.in_turns([1, 2, 3], lambda job: job * 2) == [2, 4, 6]
    total = np.arange(3.0)
    parallel.sum_arrays(total)
    assert total.tolist() == [0, 1, 2]
    with pytest.raises(UserError, match="no"):
        parallel.on_main(lambda: (_ for _ in ()).throw(UserError("no")))


def test_asking_for_ones_rank_imports_no_torch() -> None:
    code = (
        "import sys; from vaebm import parallel; print(parallel.rank(), parallel.world_size(), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "1", "False"]


if __name__ == "__main__":
    worker(sys.argv[1], Path(sys.argv[2]))
