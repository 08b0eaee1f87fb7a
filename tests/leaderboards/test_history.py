"""Every run is kept once and whole; what came before is listed oldest first, and changes of protocol are marked."""

import json
import multiprocessing
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import ood_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import generation_rows

from evaluators.measurement import Measurement
from evaluators.result_file import Results, read_results, write_results
from leaderboards import history, history_store
from leaderboards.history import FILE, append, compared, differences, render, show
from leaderboards.history_store import add, entries, names
from vaebm.errors import UserError

WEIGHTS = "0123456789abcdef" * 4


def run(
    day: int, *, value: float = 0.72, system: str = "vaebm", protocol: dict[str, Any] | None = None, **more: Any
) -> Results:
    """A run with one AUROC."""
    told = {"in_distribution": "cifar10", "interval": "DeLong, 95 %", "sampling": {"steps": 4}} | (protocol or {})
    row = Measurement(
        *("ood", system, "svhn", "auroc", value, value - 0.015, value + 0.015, 4000, 0),
        size="mini",
        protocol=told,
        provenance={"fingerprint": {"weights": WEIGHTS, "device": "cpu"}},
    )
    about = {"created": f"2026-01-{day:02d}T09:30:15Z", "commit": "a97582f0123456789-dirty", "machine": "Linux x86_64"}
    return Results("ood", [replace(row, **more)], command="python benchmark.py", packages={"torch": "2"}, **about)


def count(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


def test_what_was_measured_comes_back_and_what_was_not_does_not(tmp_path: Path) -> None:
    rows = [*ood_rows(), *generation_rows()]
    append(Results("all", rows, created="2026-01-02T03:04:05Z", commit="abc", seconds=1.5), tmp_path)
    for system in {row.system for row in rows}:
        measured = [row for row in rows if row.system == system and row.value is not None]
        found = entries(tmp_path / FILE, system)
        assert [e.value for e in found] == [row.value for row in measured]
        for entry, row in zip(found, measured, strict=True):
            for name in ("suite", "dataset", "metric", "variant", "role", "size", "seed", "n", "low", "high"):
                assert getattr(entry, name) == getattr(row, name)
            kept = {key: value for key, value in row.protocol.items() if key != "seconds_per_image"}
            assert entry.protocol == kept
            assert entry.in_distribution == row.protocol.get("in_distribution", "")
            assert (entry.created, entry.commit, entry.weights, entry.run) == ("2026-01-02T03:04:05Z", "abc", "", 1)
    assert names(tmp_path / FILE) == sorted({row.system for row in rows if row.value is not None})
    assert names(tmp_path / FILE, "nvae") == sorted(
        {r.metric for r in rows if r.system == "nvae" and r.value is not None}
    )
    assert {e.metric for e in entries(tmp_path / FILE, "vaebm", "auroc")} == {"auroc"}
    protocols = {
        json.dumps({**r.protocol, "seconds_per_image": 0}, sort_keys=True) for r in rows if r.value is not None
    }
    assert count(tmp_path / FILE, "protocol") == len(protocols)


def test_weights_and_device_stand_where_suites_put_them(tmp_path: Path) -> None:
    append(run(1), tmp_path)
    assert entries(tmp_path / FILE, "vaebm")[0].weights == WEIGHTS


def test_a_time_measured_along_does_not_make_another_protocol(tmp_path: Path) -> None:
    for day in (1, 2):
        append(run(day, protocol={"seconds_per_image": 0.1 * day}), tmp_path)
    assert count(tmp_path / FILE, "protocol") == 1
    assert not any(line.changed for line in compared(entries(tmp_path / FILE, "vaebm")))


def test_the_same_run_twice_is_one_run_by_the_checksum_of_its_file(tmp_path: Path) -> None:
    first, second = run(1), run(2)
    assert add(first, tmp_path / FILE)
    assert not add(first, tmp_path / FILE)
    write_results(first, tmp_path / "ood.json")
    assert not add(read_results(tmp_path / "ood.json"), tmp_path / FILE)
    assert add(second, tmp_path / FILE)
    assert len(entries(tmp_path / FILE, "vaebm")) == 2
    with closing(sqlite3.connect(tmp_path / FILE)) as database:
        stored = [checksum for (checksum,) in database.execute("SELECT checksum FROM run ORDER BY id")]
    assert stored[0] == json.loads((tmp_path / "ood.json").read_text())["checksum"]
    assert count(tmp_path / FILE, "run") == 2


def _append_many(folder: Path, start: Any, first: int) -> None:
    start.wait()
    for i in range(50):
        append(replace(run(1 + i % 28), seconds=float(first + i)), folder)


def test_two_programs_append_at_once_and_lose_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    context = multiprocessing.get_context("fork")
    start = context.Barrier(2)
    workers = [context.Process(target=_append_many, args=(tmp_path, start, first)) for first in (0, 50)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert capfd.readouterr().err == ""
    assert count(tmp_path / FILE, "run") == count(tmp_path / FILE, "measurement") == 100
    assert count(tmp_path / FILE, "protocol") == 1


def test_from_its_first_look_an_append_has_the_file_to_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    append(run(1), tmp_path)
    look, refused = history_store._version, []

    def others_wait(database: sqlite3.Connection, path: Path) -> int:
        with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("BEGIN IMMEDIATE")
            refused.append(True)
        return look(database, path)

    monkeypatch.setattr(history_store, "_version", others_wait)
    append(run(2), tmp_path)
    assert (refused, capsys.readouterr().err) == ([True], "")


def test_an_append_that_stops_halfway_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    append(run(1), tmp_path)
    insert, calls = history_store._insert, []

    def stop(database: sqlite3.Connection, number: int | None, row: Measurement) -> None:
        calls.append(insert(database, number, row))
        if len(calls) == 2:
            raise KeyError("stopped")

    monkeypatch.setattr(history_store, "_insert", stop)
    append(replace(run(2), rows=[run(2).rows[0], run(3).rows[0], run(4).rows[0]]), tmp_path)
    assert len(calls) == 2
    assert "history: not appended: 'stopped'" in capsys.readouterr().err
    assert (count(tmp_path / FILE, "run"), count(tmp_path / FILE, "measurement")) == (1, 1)


def text(path: Path) -> None:
    path.write_text("not a database, but long enough to look at: " * 50)


def cut_off(path: Path) -> None:
    append(replace(run(1), rows=[replace(run(1).rows[0], seed=i) for i in range(500)]), path.parent)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def scribbled(path: Path) -> None:
    append(replace(run(1), rows=[replace(run(1).rows[0], seed=i) for i in range(500)]), path.parent)
    content = bytearray(path.read_bytes())
    content[4096:] = b"\x5a" * (len(content) - 4096)
    path.write_bytes(content)


def of_another_program(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE users (name)")
        database.commit()


def without_its_tables(path: Path) -> None:
    append(run(1), path.parent)
    with closing(sqlite3.connect(path)) as database:
        database.execute("DROP TABLE measurement")
        database.commit()


def with_a_broken_protocol(path: Path) -> None:
    append(run(1), path.parent)
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE protocol SET content = '{\"n_in\": '")
        database.commit()


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (text, "is no history of results but another kind of file"),
        (cut_off, r"is damaged \("),
        (scribbled, r"is damaged \("),
        (of_another_program, "is a database of another program"),
        (without_its_tables, r"is damaged \(no such table: measurement\)"),
        (with_a_broken_protocol, "a protocol in it is no JSON"),
    ],
)
def test_a_file_that_is_no_history_is_named_and_to_be_moved_away(
    spoil: Callable[[Path], None], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / FILE
    spoil(path)
    before = path.read_bytes()
    with pytest.raises(UserError, match=f"{why}.*; move it away: the next run starts a new one") as caught:
        show(path, "vaebm", "auroc", tmp_path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""
    append(run(2), tmp_path)  # must not raise
    said = capsys.readouterr().err
    if spoil is not with_a_broken_protocol:  # only reading looks at protocols
        assert said.startswith(f"history: not appended: {path}: ")
        assert said.count("\n") == 1
        assert path.read_bytes() == before
    path.rename(tmp_path / "away.db")
    append(run(2), tmp_path)
    assert len(entries(path, "vaebm")) == 1


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    append(run(1), tmp_path)
    with closing(sqlite3.connect(tmp_path / FILE)) as database:
        database.execute(f"PRAGMA user_version = {len(history_store.MIGRATIONS) + 1}")
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(
        UserError, match=r"written by a newer version \(schema 2; this program reads up to 1\): update it"
    ):
        show(tmp_path / FILE, "vaebm", "", tmp_path)
    append(run(2), tmp_path)
    assert "newer version" in capsys.readouterr().err
    assert (tmp_path / FILE).read_bytes() == before


@pytest.mark.parametrize("reading", [True, False], ids=["by reading", "by appending"])
def test_an_older_schema_is_brought_to_this_one(reading: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append(run(1), tmp_path)
    migrations = (*history_store.MIGRATIONS, "ALTER TABLE run ADD COLUMN host TEXT; CREATE TABLE note (content TEXT)")
    monkeypatch.setattr(history_store, "MIGRATIONS", migrations)
    if not reading:
        append(run(2), tmp_path)
    assert len(entries(tmp_path / FILE, "vaebm")) == (1 if reading else 2)
    assert count(tmp_path / FILE, "note") == 0
    with closing(sqlite3.connect(tmp_path / FILE)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (2,)
        assert "host" in [column[1] for column in database.execute("PRAGMA table_info (run)")]


def test_a_folder_that_cannot_be_written_loses_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    append(run(1), tmp_path / "file")
    assert "cannot be opened or written" in capsys.readouterr().err
    append(run(1), tmp_path / "nowhere")
    assert "choose another folder with --out" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_can_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    append(run(1), tmp_path)
    (tmp_path / FILE).chmod(0o400)
    tmp_path.chmod(0o500)
    append(run(2), tmp_path)
    assert "cannot be opened or written" in capsys.readouterr().err
    assert len(entries(tmp_path / FILE, "vaebm")) == 1
    tmp_path.chmod(0o700)


def test_a_locked_file_is_waited_for_and_then_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    append(run(1), tmp_path)
    monkeypatch.setattr(history_store, "WAIT", 0.2)
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        append(run(2), tmp_path)
        assert "kept it locked for 0.2 s" in capsys.readouterr().err
        assert len(entries(tmp_path / FILE, "vaebm")) == 1  # reading goes on meanwhile
    append(run(2), tmp_path)
    assert len(entries(tmp_path / FILE, "vaebm")) == 2


def test_without_a_history_the_user_learns_how_one_comes_about(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"found no history; runs of benchmark\.py append to it"):
        show(tmp_path / FILE, "vaebm", "", tmp_path)
    assert not (tmp_path / FILE).exists()
    (tmp_path / FILE).write_text("")  # SQLite takes an empty file for an empty database
    with pytest.raises(UserError, match=r"--history vaebm: .* has no such system\. Available: nothing"):
        show(tmp_path / FILE, "vaebm", "", tmp_path)


def test_an_unknown_system_or_metric_gets_a_suggestion(tmp_path: Path) -> None:
    append(Results("ood", ood_rows()), tmp_path)
    with pytest.raises(UserError, match=r"--history vaebn: .* Did you mean 'vaebm'\? Available: codec_bytes, glow"):
        show(tmp_path / FILE, "vaebn", "", tmp_path)
    with pytest.raises(
        UserError, match=r"--metric auc: never measured of nvae .* Did you mean 'auroc'\? Available: aupr"
    ):
        show(tmp_path / FILE, "nvae", "auc", tmp_path)
    assert not list(tmp_path.glob("*.png"))


SQL = [
    "x'; DROP TABLE run; --",
    'a" OR "1"="1',
    "%",
    "*",
    "../../up",
    "a\nb",
    "ä 雪",
    "steps=1;",
    "\x1b[31mred",
    "?",
    ":v",
    "$\\frac$",
]


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(SQL) | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_names_are_never_part_of_a_query_nor_of_a_path(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    outer = tmp_path_factory.mktemp("names")
    folder = outer / "results"
    folder.mkdir()
    try:
        append(run(1), folder)
        append(run(2, system=name, dataset=name, metric=name, variant=name), folder)
        assert {name, "vaebm"} == set(names(folder / FILE))
        assert names(folder / FILE, name) == ([name] if name != "vaebm" else ["auroc", "vaebm"])
        (found,) = entries(folder / FILE, name, name)
        assert (found.system, found.dataset, found.metric, found.variant) == (name,) * 4
        assert {path.name for path in outer.iterdir()} == {"results"}
        assert all(letter.isprintable() or letter == "\n" for letter in render(compared([found])))
    finally:
        shutil.rmtree(outer)


@pytest.mark.filterwarnings("ignore:Glyph")  # the font has not every letter
@pytest.mark.parametrize("name", SQL)
def test_plots_of_odd_names_stay_in_their_folder(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    append(run(1, system=name), tmp_path / "out")
    assert show(tmp_path / "out" / FILE, name, "auroc", tmp_path / "out") == 0
    assert len(list((tmp_path / "out").glob("history_*_auroc.png"))) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert "\x1b" not in capsys.readouterr().out


def test_differences_are_named_by_their_place() -> None:
    before = {"n_in": 2000, "sampling": {"steps": 4, "target": "paper"}, "interval": "DeLong, 95 %", "old": True}
    after = {"n_in": 2000, "sampling": {"steps": 16, "target": "paper"}, "interval": "x" * 80, "new": [1, 2]}
    assert differences(before, after) == (
        f"interval: DeLong, 95 % -> {'x' * 39}…",
        "new: – -> [1, 2]",
        "old: True -> –",
        "sampling.steps: 4 -> 16",
    )
    assert differences(before, dict(reversed(before.items()))) == ()


def test_a_change_of_protocol_is_marked_against_the_line_above_of_the_same_cell(tmp_path: Path) -> None:
    changes = [{}, {"n_in": 1000}, {"n_in": 1000}, {}]
    for day, protocol in zip((3, 1, 4, 2), (changes[2], changes[0], changes[3], changes[1]), strict=True):
        for system in ("vaebm", "other"):
            append(run(day, protocol=protocol, system=system, value=0.1 * day), tmp_path)
    lines = compared(entries(tmp_path / FILE, "vaebm"))
    assert [line.entry.value for line in lines] == pytest.approx([0.1, 0.2, 0.3, 0.4])  # oldest first, not as appended
    assert [line.changed for line in lines] == [(), ("n_in: – -> 1000",), (), ("n_in: 1000 -> –",)]


def test_more_images_are_another_protocol_and_another_size_is_another_cell(tmp_path: Path) -> None:
    append(run(1), tmp_path)
    append(run(2, n=8000), tmp_path)
    append(run(3, size="small", protocol={"n_in": 5}), tmp_path)
    append(run(4, n=8000, seed=1), tmp_path)
    lines = compared(entries(tmp_path / FILE, "vaebm"))
    assert [(line.entry.size, line.entry.n, line.changed) for line in lines] == [
        ("mini", 4000, ()),
        ("mini", 8000, ("n: 4000 -> 8000",)),
        ("mini", 8000, ("seed: 0 -> 1",)),
        ("small", 4000, ()),
    ]


def test_another_seed_is_marked_as_more_images_are(tmp_path: Path) -> None:
    for day, seed in ((1, 0), (2, 7), (3, 7), (4, None)):
        append(run(day, seed=seed), tmp_path)
    lines = compared(entries(tmp_path / FILE, "vaebm"))
    assert [line.changed for line in lines] == [(), ("seed: 0 -> 7",), (), ("seed: 7 -> None",)]
    table = render(lines)
    assert "² against the line above: seed: 7 -> None" in table
    assert table.count("changed") == 2


def test_the_table_says_when_with_what_and_how_good(tmp_path: Path) -> None:
    append(run(1), tmp_path)
    append(run(2, value=0.7, protocol={"interval": "bootstrap"}), tmp_path)
    append(run(3, value=0.69, protocol={"interval": "bootstrap"}, provenance={}, low=None), tmp_path)
    append(run(4, dataset="celeba", n=None), tmp_path)
    table = render(compared(entries(tmp_path / FILE, "vaebm", "auroc")))
    title, header, rule, *body, note = table.splitlines()
    assert title == "VAEBM: auroc"
    assert header.split("  ")[0] == "when (UTC)"
    assert header.split()[2:] == ["commit", "weights", "suite", "set", "size", "n", "value", "95", "%", "protocol"]
    assert set(rule) == {"-", " "}
    assert [" ".join(line.split()) for line in body if set(line) != {"-", " "}] == [
        "2026-01-01 09:30 a97582f0-dirty 01234567 ood svhn mini 4000 0.7200 [0.7050, 0.7350]",
        "2026-01-02 09:30 a97582f0-dirty 01234567 ood svhn mini 4000 0.7000 [0.6850, 0.7150] changed¹",
        "2026-01-03 09:30 a97582f0-dirty – ood svhn mini 4000 0.6900 –",
        "2026-01-04 09:30 a97582f0-dirty 01234567 ood celeba mini – 0.7200 [0.7050, 0.7350]",
    ]
    assert set(body[3]) == {"-", " "}  # a rule between sets
    assert note == "¹ against the line above: interval: DeLong, 95 % -> bootstrap"


def test_columns_that_tell_nothing_are_left_out(tmp_path: Path) -> None:
    append(run(1), tmp_path)
    plain = render(compared(entries(tmp_path / FILE, "vaebm")))
    assert not {"in", "variant", "seed", "protocol"} & set(plain.splitlines()[1].split())
    append(run(2, seed=7), tmp_path)
    append(run(3, variant="log_p", role="diagnostic"), tmp_path)
    append(run(4, protocol={"in_distribution": "cifar100"}), tmp_path)
    full = render(compared(entries(tmp_path / FILE, "vaebm")))
    assert full.splitlines()[1].split()[4:9] == ["suite", "in", "set", "variant", "size"]
    assert "seed" in full


def test_metric_chooses_and_without_one_all_headline_numbers_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    append(Results("ood", ood_rows(), created="2026-01-02T03:04:05Z"), tmp_path)
    assert show(tmp_path / FILE, "vaebm", "", tmp_path / "all") == 0
    shown = capsys.readouterr()
    titles = [line for line in shown.out.splitlines() if line.startswith("VAEBM: ")]
    assert titles == ["VAEBM: auroc", "VAEBM: aupr", "VAEBM: fpr95"]
    assert "log_p" not in shown.out
    made = sorted(path.name for path in (tmp_path / "all").iterdir())
    assert made == [f"history_vaebm_{metric}.png" for metric in ("aupr", "auroc", "fpr95")]
    assert shown.err.split() == [str(tmp_path / "all" / f"history_vaebm_{m}.png") for m in ("auroc", "aupr", "fpr95")]
    show(tmp_path / FILE, "vaebm", "auroc", tmp_path / "one", pdf=True)
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line.startswith("VAEBM: ")] == ["VAEBM: auroc"]
    assert "log_p" in out
    assert sorted(path.suffix for path in (tmp_path / "one").iterdir()) == [".pdf", ".png"]
    show(tmp_path / FILE, "pixel_std", "", tmp_path / "control")  # no headline numbers: all there are
    assert capsys.readouterr().out.startswith("pixel std: auroc\n")


def test_append_says_nothing_when_all_is_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    append(run(1), tmp_path)
    assert capsys.readouterr() == ("", "")
    assert history.FILE == "history.db"
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
