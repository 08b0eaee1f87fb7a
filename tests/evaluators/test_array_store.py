"""The array cache: the same rows whether made, resumed, grown, cut or read, memory-mapped, and no trust in files."""

import contextlib
import errno
import io
import json
import multiprocessing
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators import array_store
from evaluators.array_store import ArrayStore, canonical_json, source_hash
from vaebm.errors import UserError

KEY = {"weights": "abc", "seed": 0}


class Rows:
    """Makes two arrays whose row i depends on i alone; remembers what it was asked for, and can die."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.asked: list[tuple[int, int]] = []
        self.dies_at = dies_at

    def __call__(self, start: int, stop: int) -> dict[str, np.ndarray]:
        if self.dies_at is not None and start >= self.dies_at:
            raise KeyboardInterrupt
        self.asked.append((start, stop))
        i = np.arange(start, stop)
        images = (i[:, None, None, None] * 7 + np.arange(12).reshape(2, 2, 3)) % 251
        return {"images": images.astype(np.uint8), "a/b c": np.sqrt(i)}


def equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return list(a) == list(b) and all(
        (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes())
        for x, y in zip(a.values(), b.values(), strict=True)
    )


def make(folder: Path | None, total: int, rows: Rows | None = None, chunk: int = 10, key: dict = KEY) -> dict:
    return ArrayStore(folder).compute(key, total, rows or Rows(), chunk=chunk)


def plain(total: int) -> dict[str, np.ndarray]:
    return Rows()(0, total)


def names(folder: Path) -> set[str]:
    """Files by what they hold: without the hashes in their names."""
    return {path.name.rsplit("-", 1)[0] if path.suffix == ".npy" else path.name for path in folder.rglob("*.*")}


def test_nothing_is_kept_without_a_folder() -> None:
    rows = Rows()
    assert equal(make(None, 25, rows), plain(25))
    make(None, 25, rows)
    assert rows.asked == [(0, 10), (10, 20), (20, 25)] * 2


def test_second_run_reads_memory_maps(tmp_path: Path) -> None:
    first, unused = make(tmp_path / "new" / "cache", 25), Rows(dies_at=0)
    second = make(tmp_path / "new" / "cache", 25, unused)
    for found in (first, second):
        assert equal(found, plain(25))
        for rows in found.values():
            assert isinstance(rows, np.memmap)
            assert not rows.flags.writeable
            assert Path(rows.filename).is_file()
    assert names(tmp_path) == {"0-25.json", "0-25-images", "0-25-a%2Fb%20c"}


def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, 45, Rows(dies_at=20))
    assert names(tmp_path) >= {"0-10.json", "10-20.json", "0-10-images", "10-20-images"}
    rows, seen = Rows(), []
    found = ArrayStore(tmp_path).compute(KEY, 45, rows, chunk=10, progress=lambda *done: seen.append(done))
    assert rows.asked == [(20, 30), (30, 40), (40, 45)]
    assert seen == [(10, 45), (20, 45), (30, 45), (40, 45), (45, 45)]
    assert equal(found, plain(45))
    assert names(tmp_path) == {"0-45.json", "0-45-images", "0-45-a%2Fb%20c"}


def test_a_smaller_run_is_the_beginning_of_a_bigger_one_and_a_bigger_one_serves_a_smaller(tmp_path: Path) -> None:
    make(tmp_path, 20)
    rows = Rows()
    grown = make(tmp_path, 45, rows)
    assert rows.asked == [(20, 30), (30, 40), (40, 45)]
    assert equal(grown, plain(45))
    for total in (45, 44, 20, 1):
        assert equal(make(tmp_path, total, Rows(dies_at=0)), plain(total))
    assert names(tmp_path) == {"0-45.json", "0-45-images", "0-45-a%2Fb%20c"}
    assert grown["images"].tobytes() == plain(45)["images"].tobytes()  # still readable after the folder was tidied


def test_unfinished_runs_serve_other_totals(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, 100, Rows(dies_at=40))
    rows = Rows(dies_at=0)
    assert equal(make(tmp_path, 35, rows), plain(35))
    rows = Rows()
    assert equal(make(tmp_path, 60, rows), plain(60))
    assert rows.asked == [(40, 50), (50, 60)]


@given(runs=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 17), st.integers(0, 40)), min_size=1, max_size=5))
def test_any_history_of_runs_gives_the_same_rows(tmp_path_factory: pytest.TempPathFactory, runs: list) -> None:
    folder = tmp_path_factory.mktemp("history")
    made: set[int] = set()
    for total, chunk, dies_at in runs:
        rows = Rows(dies_at)
        with contextlib.suppress(KeyboardInterrupt):
            assert equal(make(folder, total, rows, chunk), plain(total))
        asked = {i for span in rows.asked for i in range(*span)}
        assert asked.isdisjoint(made)
        assert all(stop - start <= chunk for start, stop in rows.asked)
        made |= asked
        assert ArrayStore(folder).available(KEY, 50) == len(made)
        assert ArrayStore(folder).available(KEY, 7) == len({i for i in made if i < 7})


def test_another_key_is_another_entry_and_the_order_of_keys_none(tmp_path: Path) -> None:
    make(tmp_path, 10)
    make(tmp_path, 10, Rows(dies_at=0), key=dict(reversed(KEY.items())))
    rows = Rows()
    make(tmp_path, 10, rows, key={**KEY, "seed": 1})
    assert rows.asked == [(0, 10)]
    assert canonical_json({"b": 1, "a": [1.5]}) == '{"a":[1.5],"b":1}'


# --- files that cannot be trusted ------------------------------------------------------------------------------------


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.rglob(pattern)
    return path


def flip_a_byte(folder: Path) -> None:
    path = only(folder, "*images*.npy")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def truncate(folder: Path) -> None:
    os.truncate(only(folder, "*images*.npy"), 150)


def empty(folder: Path) -> None:
    only(folder, "*images*.npy").write_bytes(b"")


def missing(folder: Path) -> None:
    only(folder, "*images*.npy").unlink()


def foreign(folder: Path) -> None:
    np.save(only(folder, "*images*.npy"), np.zeros((25, 2, 2, 3), np.uint8))


def pickled(folder: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    only(folder, "*images*.npy").write_bytes(buffer.getvalue())


def edit(folder: Path, **changes: object) -> None:
    path = only(folder, "*.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def other_key(folder: Path) -> None:
    edit(folder, key={"weights": "else"})


def no_arrays(folder: Path) -> None:
    edit(folder, arrays={})


def list_for_arrays(folder: Path) -> None:
    edit(folder, arrays=["images"])


def not_json(folder: Path) -> None:
    only(folder, "*.json").write_bytes(b"\xff\xfe{")


@pytest.mark.parametrize(
    "damage",
    [
        *(flip_a_byte, truncate, empty, missing, foreign, pickled),
        *(other_key, no_arrays, list_for_arrays, not_json),
    ],
)
def test_damaged_and_foreign_files_are_removed_and_rebuilt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage
) -> None:
    make(tmp_path, 25)
    damage(tmp_path)
    rows = Rows()
    assert equal(make(tmp_path, 25, rows), plain(25))
    assert rows.asked == [(0, 10), (10, 20), (20, 25)]
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"note: {tmp_path}")
    assert said.err.count("\n") == 1
    assert names(tmp_path) == {"0-25.json", "0-25-images", "0-25-a%2Fb%20c"}
    make(tmp_path, 25, Rows(dies_at=0))


def test_a_damaged_chunk_alone_is_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, 45, Rows(dies_at=40))
    os.truncate(next(tmp_path.rglob("10-20-images*")), 200)
    rows = Rows()
    assert equal(make(tmp_path, 45, rows, chunk=30), plain(45))
    assert rows.asked == [(10, 20), (40, 45)]  # what lies behind the gap is kept
    assert "10-20-images" in capsys.readouterr().err


def test_strangers_files_are_left_alone_and_old_litter_goes(tmp_path: Path) -> None:
    make(tmp_path, 10)
    folder = only(tmp_path, "*.json").parent
    for name in ("README.txt", ".old.partial", ".new.partial"):
        (folder / name).write_text("x")
    os.utime(folder / ".old.partial", (0, 0))
    make(tmp_path, 20)
    left = {path.name for path in folder.iterdir()}
    assert {"README.txt", ".new.partial"} < left
    assert ".old.partial" not in left


# --- promises that are broken ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda start, stop: {}, "no arrays"),
        (lambda start, stop: {"a": np.zeros(3)}, r"a is float64 \(3,\) for 10 items, needed numbers \(10, ...\)"),
        (lambda start, stop: {"a": 1.0}, r"a is float64 \(\)"),
        (lambda start, stop: {"a": [None] * (stop - start)}, "object"),
        (lambda start, stop: {"a": np.zeros((stop - start, start + 1))}, r"rows 10 on are a float64 \(11,\)"),
        (lambda start, stop: {"ab"[start // 10]: np.zeros(stop - start)}, "rows 10 on are b"),
        (lambda start, stop: {"a": np.zeros(stop - start, "<f4" if start else "<f8")}, "rows 10 on are a float32"),
    ],
)
@pytest.mark.parametrize("kept", [True, False])
def test_a_function_that_breaks_its_promise(tmp_path: Path, wrong, message: str, kept: bool) -> None:
    with pytest.raises(UserError, match=message):
        ArrayStore(tmp_path if kept else None).compute(KEY, 20, wrong, chunk=10, label="mine")


def test_a_reused_buffer_is_copied() -> None:
    buffer = np.empty(10)

    def reuses(start: int, stop: int) -> dict[str, np.ndarray]:
        buffer[: stop - start] = np.arange(start, stop)
        return {"a": buffer[: stop - start]}

    np.testing.assert_array_equal(ArrayStore(None).compute(KEY, 25, reuses, chunk=10)["a"], np.arange(25))


def test_unusable_keys_and_numbers() -> None:
    with pytest.raises(TypeError):
        ArrayStore(None).compute({"a": object()}, 1, Rows())
    with pytest.raises(ValueError, match="JSON"):
        ArrayStore(None).compute({"a": float("nan")}, 1, Rows())
    with pytest.raises(ValueError, match="total must be at least 1, found 0"):
        make(None, 0)
    with pytest.raises(ValueError, match="chunk must be at least 1, found 0"):
        make(None, 1, chunk=0)


@pytest.mark.parametrize("where", ["touch", "replace", "mkdir"])
def test_a_folder_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, where, refuse)
    with pytest.raises(UserError, match=r"Permission denied; choose a writable folder with --cache") as caught:
        make(tmp_path, 25)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.partial"))


def test_a_full_disk_is_named_and_what_was_complete_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, calls = array_store._write_npy, iter(range(99))

    def full(path: Path, *args: object) -> str:
        if next(calls) >= 4:  # two arrays a chunk: the third chunk
            path.write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, *args)

    monkeypatch.setattr(array_store, "_write_npy", full)
    with pytest.raises(UserError, match=r"No space left on device; free some space or .* --cache"):
        make(tmp_path, 45)
    assert not list(tmp_path.rglob("*.partial"))
    monkeypatch.undo()
    rows = Rows()
    assert equal(make(tmp_path, 45, rows), plain(45))
    assert rows.asked[0] == (20, 30)


def test_an_error_of_the_function_is_not_taken_for_one_of_the_disk(tmp_path: Path) -> None:
    def broken(start: int, stop: int) -> dict[str, np.ndarray]:
        raise PermissionError("the data, not the cache")

    with pytest.raises(PermissionError, match="the data"):
        ArrayStore(tmp_path).compute(KEY, 10, broken)


# --- memory and company ----------------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_number_of_rows(tmp_path: Path) -> None:
    def peak(total: int) -> int:
        tracemalloc.start()
        made = ArrayStore(tmp_path).compute(
            {"total": total}, total, lambda start, stop: {"a": np.ones((stop - start, 1 << 14))}, chunk=8
        )
        assert made["a"].nbytes == total * (1 << 17)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(512) < 2 * peak(128) < 2 * 512 * (1 << 17)


def _killed_while_writing(folder: str) -> None:
    write, calls = array_store._write_npy, iter(range(99))

    def dies(path: Path, *args: object) -> str:
        if next(calls) == 5:  # the second array of the third chunk
            path.write_bytes(b"half of it")
            os._exit(9)
        return write(path, *args)

    array_store._write_npy = dies  # type: ignore[assignment]
    make(Path(folder), 45)


def test_a_process_killed_in_the_middle_of_a_write_spoils_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process = multiprocessing.get_context("fork").Process(target=_killed_while_writing, args=(str(tmp_path),))
    process.start()
    process.join(60)
    assert process.exitcode == 9
    assert len(list(tmp_path.rglob("*.partial"))) == 1
    rows = Rows()
    assert equal(make(tmp_path, 45, rows), plain(45))
    assert rows.asked == [(20, 30), (30, 40), (40, 45)]
    assert capsys.readouterr().err == ""


def _in_company(folder: str, barrier, seed: int) -> None:
    barrier.wait()
    for total in (40, 70, 100):
        assert equal(make(Path(folder), total, chunk=3 + seed), plain(total))


def test_processes_that_share_a_key_do_not_spoil_each_other(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(4)
    processes = [context.Process(target=_in_company, args=(str(tmp_path), barrier, seed)) for seed in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert equal(make(tmp_path, 100, Rows(dies_at=0)), plain(100))
    assert not list(tmp_path.rglob("*.partial"))
    assert "Traceback" not in capfd.readouterr().err


def test_source_hash_follows_content(tmp_path: Path) -> None:
    a, b = tmp_path / "a.py", tmp_path / "b.py"
    a.write_text("x = 1")
    b.write_text("y = 2")
    first = source_hash([a, b])
    assert source_hash([b, a]) == first
    b.write_text("y = 3")
    assert source_hash([a, b]) != first


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(array_store, "_BLOCK", 100)  # so that arrays take several
