"""Running a result file again: by the options of then, at the places of now; and an answer about every row."""

import json
import math
import shlex
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import benchmark
from evaluators import SUITES
from evaluators.differences import ROUNDING, differences
from evaluators.features.summary import FeatureSummary
from evaluators.measurement import Measurement
from evaluators.quality import Reference, measure_quality
from evaluators.reproduce import MACHINE, PLACES, deciding_options, report, stored_options
from evaluators.result_file import Results, read_results, write_results
from evaluators.suite import destination
from leaderboards import cli
from vaebm.cli import parse, run
from vaebm.errors import UserError

VERSION_1 = Path(__file__).with_name("results-version-1.json")


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Bundled images only, whatever the machine has; threads as they were."""
    monkeypatch.delenv("VAEBM_DATA", raising=False)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


# --- the options of a run --------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ood.json"


def store(path: Path, *words: str, suite: str = "ood", **options: Any) -> dict[str, Any]:
    """Leave the result file of a run with this command line, without the run; return what decided it."""
    decided = deciding_options(parse(benchmark.parser(), ["--suite", suite, *words]), cli.OPTIONS) | options
    write_results(Results(suite, [], options=decided), path)
    return decided


def again(path: Path, *words: str) -> Any:
    return stored_options(benchmark.parser(), ["--reproduce", str(path), *words], cli.OPTIONS)


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--num-images", "20", "--seed", "3", "--systems", "vaebm,glow", "--batch-size", "7", "--threads", "1"),
        ("--checkpoint", "a=x.pt,y.pth", "--checkpoint", "b=my folder/z.safetensors", "--systems", "none"),
        ("--ood", "svhn,mine=--odd name/1e3", "--interp", "shuffled", "--importance-samples", "10"),
        ("--scores", "a=null", "--scores", "b=[1, 2]", "--dataset", "", "--ood", ""),
        ("--dataset", "1e3", "--device", "cuda:1"),
    ],
)
def test_every_option_that_decides_a_number_comes_from_the_file(path: Path, words: tuple[str, ...]) -> None:
    decided = store(path, *words)
    options = again(path)
    assert deciding_options(options, cli.OPTIONS) == decided
    assert options.suite == "ood"


def test_options_are_told_apart_completely() -> None:
    """A flag of the front door is a place, is shown only, or is stored."""
    options = parse(benchmark.parser(), [])
    stored = deciding_options(options, cli.OPTIONS)
    places = {destination(flag) for flag in PLACES}
    shown = {destination(flag) for flag in cli.OPTIONS}
    assert set(options.as_dict()) == stored.keys() | places | shown
    assert not stored.keys() & (places | shown)
    assert {"suite", "systems", "checkpoint", "num_images", "seed", "dataset", "scores", "samples"} <= stored.keys()
    json.dumps(stored, allow_nan=False)


def test_path_among_options_is_stored_as_text(path: Path) -> None:
    parser = benchmark.parser()
    parser.add_argument("--masks", type=Path, default=Path("none"))
    options = parse(parser, ["--suite", "ood", "--masks", "a/b"])
    decided = deciding_options(options, cli.OPTIONS)
    assert decided["masks"] == "a/b"
    write_results(Results("ood", [], options=decided), path)
    repeated = stored_options(parser, ["--reproduce", str(path)], cli.OPTIONS)
    assert repeated.masks == Path("a/b")


def test_places_and_display_are_those_of_now(path: Path, tmp_path: Path) -> None:
    store(path, "--out", "then", "--cache", "then", "--data-root", "then", "--offline", "--no-progress")
    options = again(path)
    assert (options.data_root, options.offline, options.no_progress, options.json) == (None, False, False, False)
    assert options.reproduce == path
    words = ["--data-root", "now", "--offline", "--no-progress", "--json", "--precision", "4", "--pdf"]
    options = again(path, *words)
    assert (options.data_root, options.offline, options.no_progress, options.json) == ("now", True, True, True)
    assert (options.precision, options.pdf) == (4, True)


def test_nothing_comes_from_the_cache_unless_it_is_named(path: Path) -> None:
    store(path, "--cache", "then")
    assert again(path).cache == "none"
    assert again(path, "--cache", "now").cache == "now"
    assert again(path, "--cache", "").cache == ""  # the user's


def test_results_go_beside_the_file_and_never_over_it(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(path)
    assert again(path).out == tmp_path / "reproduced"
    assert again(path, "--out", str(tmp_path / "other")).out == tmp_path / "other"
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path)
    for out in (str(tmp_path), ".", "in/.."):
        with pytest.raises(UserError, match="would replace"):
            again(Path("ood.json"), "--out", out)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(UserError, match="would replace"):
        again(path, "--out", "link")
    other = tmp_path / "mine.json"  # of another name: there is nothing to replace
    store(other)
    assert again(other, "--out", ".").out == Path(".")


def test_run_may_move_to_another_machine(path: Path) -> None:
    store(path, "--device", "cuda", "--threads", "4", "--batch-size", "7")
    options = again(path)
    assert (options.device, options.threads, options.batch_size) == ("cuda", 4, 7)
    options = again(path, "--device", "cpu", "--threads", "0", "--batch-size", "100")  # the defaults, but typed
    assert (options.device, options.threads, options.batch_size) == ("cpu", 0, 100)
    assert set(MACHINE) == {"--device", "--threads", "--batch-size"}


@pytest.mark.parametrize("words", [("--num-images", "0"), ("--seed", "5"), ("--suite", "ood"), ("--ood", "svhn")])
def test_what_the_file_decides_may_not_be_given_as_well(path: Path, words: tuple[str, ...]) -> None:
    store(path)
    with pytest.raises(UserError, match=f"{words[0]}: --reproduce takes it from .*ood.json; leave it out"):
        again(path, *words)


def test_configuration_file_of_now_is_held_to_the_same(path: Path, tmp_path: Path) -> None:
    store(path)
    config = tmp_path / "now.yaml"
    config.write_text("no_progress: true\n")
    assert again(path, "--config", str(config)).no_progress
    config.write_text("seed: 7\n")
    with pytest.raises(UserError, match="--seed: --reproduce takes it from"):
        again(path, "--config", str(config))


def test_suite_of_all_is_run_alone_without_options_of_the_others(path: Path) -> None:
    words = ("--samples", "mine=folder", "--steps", "0,1", "--metrics", "fd", "--scores", "a=b.npz")
    store(path, *words, suite="all")
    write_results(replace(read_results(path), suite="ood"), path)
    options = again(path)
    assert (options.suite, options.samples, options.steps, options.metrics) == ("ood", [], "", "")
    assert options.scores == ["a=b.npz"]
    write_results(replace(read_results(path), suite="modes"), path)
    again_of_all = again(path)
    assert (again_of_all.suite, again_of_all.samples, again_of_all.steps) == ("modes", ["mine=folder"], "0,1")
    assert (again_of_all.metrics, again_of_all.scores) == ("", [])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"warp": 9}, "cannot be run again: unknown option --warp"),
        ({"num_image": 9}, "cannot be run again: unknown option --num-image. Did you mean --num-images?"),
        ({"num_images": "many"}, "cannot be run again: .*num_images"),
        ({"num_images": None}, "this version reads its num_images None as 0"),
        ({"seed": [1, 2]}, "this version reads its seed .1, 2. as 2"),
        ({"systems": ["a", "b"]}, "this version reads its systems .*'a', 'b'.* as 'b'"),
        ({"checkpoint": {"a": "b"}}, "this version reads its checkpoint"),
    ],
)
def test_option_that_this_version_does_not_take_is_refused(path: Path, options: dict[str, Any], says: str) -> None:
    store(path, **options)
    with pytest.raises(UserError, match=says) as error:
        again(path)
    assert str(error.value).startswith(f"{path}: ")


def test_file_of_no_single_run_is_refused(path: Path) -> None:
    write_results(Results("ood,modes", [], options={"seed": 0}), path)
    with pytest.raises(UserError, match="joins runs of ood,modes; needed the file of one suite"):
        again(path)
    write_results(Results("odd", [], options={"seed": 0}), path)
    with pytest.raises(UserError, match=r"unknown suite 'odd'. Did you mean 'ood'\?"):
        again(path)
    for command in ("", "my own script", "python other.py --suite ood"):
        write_results(Results("ood", [], command=command), path)
        with pytest.raises(UserError, match="holds neither options nor a command line"):
            again(path)
    with pytest.raises(UserError, match="cannot be read"):
        again(path.parent / "none.json")
    path.write_text(path.read_text()[:-4])
    with pytest.raises(UserError, match="cut off"):
        again(path)


def test_version_1_is_run_again_by_its_command_line(path: Path) -> None:
    path.write_text(VERSION_1.read_text())
    options = again(path)
    assert (options.suite, options.systems, options.ood, options.num_images) == ("ood", "vaebm", "svhn,celeba", 8)
    assert (options.threads, options.offline, options.no_progress) == (1, False, False)  # offline is a place of then
    words = ["--suite", "all", "--samples", "a b=c d", "--scores", "x=y", "--out", "then", "--num-images=5"]
    for command in (["python", "benchmark.py"], ["torchrun", "--nproc-per-node", "8", "/far/benchmark.py"]):
        write_results(Results("generation", [], command=shlex.join([*command, *words])), path)
        options = again(path)
        assert (options.suite, options.samples, options.num_images) == ("generation", ["a b=c d"], 5)
        assert (options.scores, options.out) == ([], path.parent / "reproduced")
    write_results(Results("ood", [], command="python benchmark.py --suite ood --warp 9"), path)
    with pytest.raises(UserError, match="cannot be run again: unknown option --warp"):
        again(path)


# --- comparing -------------------------------------------------------------------------------------------------


def row(value: float | None = 0.5, half: float | None = 0.1, dataset: str = "svhn", **more: Any) -> Measurement:
    ends = {} if half is None or value is None else {"low": value - half, "high": value + half}
    fields: dict[str, Any] = {"n": 100, "seed": 0, "protocol": {"sampling": {"steps": 4}}, "note": "why"}
    return Measurement("ood", "vaebm", dataset, "auroc", value, **{**fields, **ends, **more})


def verdict(stored: Measurement, repeated: Measurement) -> str:
    (pair,) = differences(Results("ood", [stored]), Results("ood", [repeated])).pairs
    return pair.verdict


@pytest.mark.parametrize(
    ("stored", "repeated", "expected"),
    [
        (row(), row(), "identical"),
        (row(None), row(None), "identical"),
        (row(None), row(None, note="another reason"), "another reason"),
        (row(None), row(None, seed=1), "another protocol"),
        (row(None), row(None, note="another reason", protocol={}), "another protocol"),
        (row(half=None), row(half=None), "identical"),
        (row(), row(note="another caveat", provenance={"seconds": 3}), "identical"),
        (row(), row(protocol={"sampling": {"steps": 4}, "seconds_per_image": 0.3}), "identical"),
        (row(12.3), row(12.3 * (1 + 3e-10)), "equal to rounding"),
        (row(half=None), row(0.5 + 1e-10, None), "equal to rounding"),
        (row(1e-14), row(-1e-14), "equal to rounding"),  # zero, on the scale of its interval
        (row(), row(low=0.4 + 1e-12), "equal to rounding"),
        (row(), row(0.5 + 1e-8), "inside both intervals"),
        (row(), row(0.59), "inside both intervals"),
        (row(), row(low=0.42), "inside both intervals"),
        (row(), row(0.61), "outside"),
        (row(0.5, 0.2), row(0.61, 0.1), "outside"),  # inside one of them only
        (row(), row(half=None), "outside"),
        (row(half=None), row(0.5 + 1e-8, None), "outside"),
        (row(), row(None), "empty on one side"),
        (row(None), row(), "empty on one side"),
        (row(), row(n=99), "another protocol"),
        (row(), row(seed=1), "another protocol"),
        (row(), row(size="mini"), "another protocol"),
        (row(), row(protocol={"sampling": {"steps": 8}}), "another protocol"),
        (row(), row(protocol={}), "another protocol"),
        (row(protocol={"floor": 0.1}), row(protocol={"floor": 0.1 + 1e-15}), "identical"),
        (row(protocol={"floor": 0.1}), row(protocol={"floor": 0.1 + 1e-6}), "another protocol"),
        (row(protocol={"n_out": [1, 2]}), row(protocol={"n_out": (1, 2)}), "identical"),
    ],
)
def test_verdict_on_a_row(stored: Measurement, repeated: Measurement, expected: str) -> None:
    assert verdict(stored, repeated) == expected


def test_seconds_do_not_count() -> None:
    then, now = (replace(row(value), metric="seconds_per_image") for value in (1.0, 9.0))
    found = differences(Results("speed", [then]), Results("speed", [now]))
    assert (found.pairs[0].verdict, found.exit_code) == ("a time", 0)


@pytest.mark.parametrize("field", ["suite", "system", "dataset", "metric", "role", "variant"])
def test_rows_belong_together_by_what_they_are_about(field: str) -> None:
    other = replace(row(), **{field: "control" if field == "role" else "other"})
    found = differences(Results("ood", [row(), other]), Results("ood", [other, row()]))
    assert [pair.verdict for pair in found.pairs] == ["identical"] * 2
    found = differences(Results("ood", [row()]), Results("ood", [other]))
    assert [pair.verdict for pair in found.pairs] == ["only again", "only stored"]
    assert found.exit_code == 1


def test_row_that_is_there_twice_is_not_lost() -> None:
    found = differences(Results("ood", [row(), row(0.7)]), Results("ood", [row(), row(0.9)]))
    assert [pair.verdict for pair in found.pairs] == ["outside", "identical"]
    found = differences(Results("ood", [row(), row()]), Results("ood", [row()]))
    assert [pair.verdict for pair in found.pairs] == ["only stored", "identical"]


values = st.floats(-1e6, 1e6) | st.none()
rows = st.lists(
    st.builds(
        lambda value, half, dataset, n: row(value, half, dataset, n=n),
        values,
        st.none() | st.floats(0, 10),
        st.sampled_from("abcd"),
        st.sampled_from([1, 2]),
    ),
    max_size=6,
    unique_by=lambda row: row.dataset,
)


@given(rows)
def test_run_reproduces_itself_in_any_order(found: list[Measurement]) -> None:
    same = differences(Results("ood", found), Results("ood", found[::-1]))
    assert {pair.verdict for pair in same.pairs} <= {"identical"}
    assert same.exit_code == (0 if found else 1)
    assert len(same.pairs) == len(found)


def test_two_files_without_rows_reproduce_nothing() -> None:
    found = differences(Results("ood", []), Results("ood", []))
    assert (found.exit_code, found.text()) == (1, "Nothing was compared: neither run has a row.")


def test_two_empty_rows_say_both_reasons_and_what_differs() -> None:
    found = differences(Results("ood", [row(None)]), Results("ood", [row(None, note="other")]))
    assert (found.exit_code, found.answer) == (1, "Not reproduced.")
    (line,) = [line for line in found.text().splitlines() if line.startswith("vaebm")]
    assert line.split()[4:] == ["why", "other", "another", "reason"]
    found = differences(Results("ood", [row(None)]), Results("ood", [row(None, n=7)]))
    assert "  n: 100 -> 7  (1 row)" in found.text().splitlines()


@given(rows, rows)
def test_answer_does_not_depend_on_which_run_was_first(one: list[Measurement], other: list[Measurement]) -> None:
    there, back = (
        differences(Results("ood", one), Results("ood", other)),
        differences(Results("ood", other), Results("ood", one)),
    )
    swap = {"only stored": "only again", "only again": "only stored"}
    assert sorted(pair.verdict for pair in there.pairs) == sorted(swap.get(p.verdict, p.verdict) for p in back.pairs)
    assert there.exit_code == back.exit_code
    assert len(there.text()) > 0


def test_worst_rows_come_first_and_the_table_has_an_end() -> None:
    names = [f"set{i}" for i in range(60)]
    stored = [row(dataset=name) for name in names]
    repeated = [row(0.5 + 0.001 * i, dataset=name) for i, name in enumerate(names)][:-1]
    found = differences(Results("ood", stored), Results("ood", repeated))
    assert [pair.row.dataset for pair in found.pairs] == ["set59", *[f"set{i}" for i in range(58, 0, -1)], "set0"]
    text = found.text()
    assert text.startswith("Not reproduced.\n")
    assert "60 rows: 1 identical, 58 inside both intervals, 1 only stored" in text
    assert "set20" in text
    assert "set19" not in text  # forty rows are shown
    assert "... and 19 more" in text


def test_report_says_what_moved_and_why() -> None:
    def results(value: float, steps: int, weights: str, **about: Any) -> Results:
        given = {"protocol": {"sampling": {"steps": steps}}, "provenance": {"fingerprint": {"weights": weights * 64}}}
        moved = replace(row(value), system="moved", provenance={"data": {"svhn": weights * 64}})
        return Results("ood", [replace(row(value, dataset=name), **given) for name in ("a", "b")] + [moved], **about)

    stored = results(0.5, 4, "a", commit="c" * 40, packages={"torch": "2.9", "old": "1"}, numerics={"threads": 1})
    repeated = results(
        0.55, 8, "b", commit="c" * 40 + "-dirty", packages={"torch": "2.10", "new": "1"}, numerics={"threads": 2}
    )
    found = differences(stored, repeated)
    lines = found.text().splitlines()
    assert lines[:2] == ["Not reproduced.", "3 rows: 1 inside both intervals, 2 another protocol"]
    assert lines[3].split() == [
        "system",
        "dataset",
        "metric",
        "variant",
        "role",
        "stored",
        "again",
        "change",
        "verdict",
    ]
    (moved,) = [line for line in lines if line.startswith("moved")]
    assert moved.split()[4:] == [
        "0.5",
        "[0.4,",
        "0.6]",
        "0.55",
        "[0.45,",
        "0.65]",
        "+0.05",
        "inside",
        "both",
        "intervals",
    ]
    assert lines[-9:] == [
        "What differs in protocol:",
        "  sampling.steps: 4 -> 8  (2 rows)",
        "",
        "What differs in provenance:",
        "  fingerprint.weights: aaaaaaaaaaaa... -> bbbbbbbbbbbb...  (2 rows)",
        "  data.svhn: aaaaaaaaaaaa... -> bbbbbbbbbbbb...  (1 row)",
        f"  commit: {'c' * 40} -> {'c' * 40}-dirty",
        "  packages.torch: 2.9 -> 2.10",
        "  numerics.threads: 1 -> 2",
    ]


@pytest.mark.parametrize(
    ("repeated", "answer", "code"),
    [
        (row(), "Reproduced.", 0),
        (row(0.5 + 1e-12), "Reproduced.", 0),
        (row(0.51), "Reproduced within the intervals, but not to the digit.", 1),
        (row(0.9), "Not reproduced.", 1),
        (row(None), "Not reproduced.", 1),
    ],
)
def test_answer_and_exit_code(repeated: Measurement, answer: str, code: int) -> None:
    found = differences(Results("ood", [row()]), Results("ood", [repeated]))
    assert found.text().splitlines()[0] == answer
    assert found.exit_code == code
    assert ("Nothing that is recorded" in found.text()) == (code == 1)


def test_older_file_is_not_blamed_for_what_it_does_not_know() -> None:
    stored = Results("ood", [row()], packages={"torch": "2.9"})
    repeated = replace(
        stored, commit="c", numerics={"threads": 1}, options={"seed": 0}, packages={"torch": "2.9", "x": "1"}
    )
    assert differences(stored, repeated).provenance == []


def test_names_cannot_play_tricks_on_a_terminal() -> None:
    stored = replace(row(), system="\x1b[2Jvaebm", provenance={"a\x07": 1})
    text = differences(Results("ood", [stored]), Results("ood", [replace(stored, value=0.51, provenance={})])).text()
    assert "?[2Jvaebm" in text
    assert text.replace("\n", "").isprintable()


def test_report_goes_where_no_json_is(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store(path)
    write_results(replace(read_results(path), rows=[row()]), path)
    for words, stream in (((), 0), (("--json",), 1)):
        assert report(again(path, *words), (tmp_path / "again.json", Results("ood", [row(0.51)]))) == 1
        printed = capsys.readouterr()
        assert "Reproduced within the intervals" in printed[stream]
        assert printed[1 - stream] == ""


def test_rounding_lies_between_another_order_of_summation_and_another_float32() -> None:
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(32, 32)) / 6
    data, samples = (np.maximum(rng.normal(size=(n, 32)) @ mix + shift, 0) for n, shift in ((2000, 0.3), (600, 0.33)))
    metrics = ["fd", "fd_infinity", "kd"]

    def measured(data: np.ndarray, samples: np.ndarray) -> Results:
        made = FeatureSummary.from_features(samples.astype(np.float32))
        reference = Reference("data", FeatureSummary.from_features(data.astype(np.float32)))
        found = {quality.metric: quality.estimate for quality in measure_quality(made, reference, metrics)}
        return Results(
            "generation", [replace(row(e.value), metric=m, low=e.low, high=e.high) for m, e in found.items()]
        )

    stored, shuffled = measured(data, samples), measured(rng.permutation(data), samples)
    assert differences(stored, shuffled).exit_code == 0
    noise = 1 + 1e-6 * rng.normal(size=samples.shape)
    assert {pair.verdict for pair in differences(stored, measured(data, samples * noise)).pairs} == {
        "inside both intervals"
    }
    assert math.log10(ROUNDING) == pytest.approx(-9)


# --- the front door --------------------------------------------------------------------------------------------


@pytest.fixture
def call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def called(*words: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(benchmark.main, [*map(str, words), "--no-progress", "--offline"])
        return (code, *capsys.readouterr())

    return called


SMALL = ("--suite", "ood", "--systems", "vaebm", "--num-images", "6", "--threads", "1", "--cache", "none")


def test_run_again_is_identical_and_a_changed_input_is_named(
    call: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3)).astype(np.uint8)
    np.save(tmp_path / "mine.npy", images)
    code, _, error = call(*SMALL, "--ood", f"svhn,mine={tmp_path}/mine.npy", "--seed", "2", "--out", tmp_path / "first")
    assert code == 0, error
    stored = tmp_path / "first" / "ood.json"
    before = stored.read_bytes()

    code, text, error = call("--reproduce", stored)
    assert code == 0, text + error
    assert "\nReproduced.\n" in text
    assert f"{len(read_results(stored).rows)} identical" in text
    repeated = stored.parent / "reproduced" / "ood.json"
    assert read_results(repeated).rows == read_results(stored).rows
    assert read_results(repeated).options == read_results(stored).options
    assert "--reproduce" in read_results(repeated).command

    np.save(tmp_path / "mine.npy", images // 2)
    code, text, _ = call("--reproduce", repeated)
    assert code == 1
    assert "Not reproduced." in text
    assert "data.mine: " in text
    assert "data.svhn: " not in text
    assert stored.read_bytes() == before

    code, text, error = call("--reproduce", stored, "--out", stored.parent)
    assert (code, text) == (2, "")
    assert "would replace" in error
    assert stored.read_bytes() == before


def test_real_run_of_version_1_is_reproduced_row_by_row(
    call: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    """The file holds six rows of a run of an older version: their numbers belong to its weights and its processor, their places do not."""
    stored = tmp_path / "ood.json"
    stored.write_text(VERSION_1.read_text())
    code, text, error = call("--reproduce", stored)
    assert code == 1, error  # the rows that were left out of it
    found = differences(read_results(stored), read_results(tmp_path / "reproduced" / "ood.json"))
    rows = read_results(tmp_path / "reproduced" / "ood.json").rows
    assert len(found.pairs) == len(rows) > 6
    counts = Counter(pair.verdict for pair in found.pairs)
    assert counts["only stored"] == 0
    assert counts["only again"] == len(rows) - 6
    assert f"{len(rows) - 6} only again" in text


def test_suites_that_ship_can_all_be_stored() -> None:
    for suite in SUITES:
        decided = deciding_options(parse(benchmark.parser(), ["--suite", suite]), cli.OPTIONS)
        assert {destination(flag) for flag in SUITES.load(suite).options} - {"dry_run"} <= decided.keys()
