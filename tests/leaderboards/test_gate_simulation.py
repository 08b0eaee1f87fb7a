"""How often the gate is wrong where the truth is known: the script behind docs/gate.md, small; and in full on demand."""

import importlib.util
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from vaebm.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script():  # type: ignore[no-untyped-def]
    spec = importlib.util.spec_from_file_location("gate_simulation", ROOT / "benchmarks" / "gate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def trials(script, runs: int, **more) -> Counter:  # type: ignore[no-untyped-def]
    given = {"n": 300, "drop": 0.03, "shared": (0.9,), "replicates": 50, **more}
    return sum((script.simulate([1, i], **given) for i in range(runs)), Counter())


def test_scores_have_the_truth_they_are_said_to_have(script) -> None:  # type: ignore[no-untyped-def]
    from evaluators.metrics.auroc import auroc

    rng = np.random.default_rng(0)
    first = script.draw(rng, (0.9, 0.3), 40_000)
    second = script.redraw(rng, first, (0.9, 0.3), 0.8)
    for scores in (first, second):
        assert auroc(scores["inside"], scores["set0"]) == pytest.approx(0.9, abs=0.01)
        assert auroc(scores["inside"], scores["set1"]) == pytest.approx(0.3, abs=0.01)
    for name in first:
        assert np.corrcoef(first[name], second[name])[0, 1] == pytest.approx(0.8, abs=0.02)
    fallen = script.let_down(second, 1, 0.3, 0.05)
    assert auroc(fallen["inside"], fallen["set1"]) == pytest.approx(0.25, abs=0.01)
    assert fallen.keys() == {"inside", "set1"}
    assert script.distance(0.9) == pytest.approx(np.sqrt(2) * norm.ppf(0.9))


def test_few_false_alarms_and_large_drops_are_caught(script) -> None:  # type: ignore[no-untyped-def]
    runs, drop = 20, 0.15
    counts = trials(script, runs, drop=drop)
    for case in (script.NEW_IMAGES, "the same, scores correlate 0.9"):
        # More than this many has a chance of one in a thousand where the rate is 5 %.
        assert counts["fails", case] <= 5
        assert binomtest(5 + 1, runs, 0.05, alternative="greater").pvalue < 0.001
        for base in (0.75, 0.85, 0.95):
            assert counts["caught", case, f"{base:g}"] >= 0.9 * runs
    paired = counts["correlation", "the same, scores correlate 0.9"] / runs
    assert 0.8 < paired < 0.9


def test_scores_of_the_same_images_catch_what_other_images_do_not(script) -> None:  # type: ignore[no-untyped-def]
    counts = trials(script, 10, drop=0.06, shared=(0.95,), replicates=10)
    caught = lambda case: sum(counts["caught", case, f"{base:g}"] for base in (0.55, 0.65, 0.75))
    assert caught("the same, scores correlate 0.95") > 2 * caught(script.NEW_IMAGES)


def test_no_drop_is_caught_no_more_often_than_a_false_alarm(script) -> None:  # type: ignore[no-untyped-def]
    counts = trials(script, 6, drop=0.0, replicates=20)
    assert sum(number for key, number in counts.items() if key[0] == "caught") <= 2


def test_prints_both_tables_of_what_was_asked_for(script, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    words = ["--runs", "2", "--n", "60", "--replicates", "10", "--correlations", "0.7", "--drop", "0.04"]
    assert script.main(words) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("2 pairs of runs for each row, 60 + 60 images a cell, 52 cells a run, 10 resamples,")
    assert "| the same, scores correlate 0.7 |" in printed
    assert "| caught: an AUROC that fell by 0.04 from | other images | the same, scores correlate 0.7 |" in printed
    assert len(re.findall(r"^\| 0\.\d+ \|", printed, re.MULTILINE)) == len(script.DROPS)
    script.main([*words, "--seed", "5"])
    assert capsys.readouterr().out != printed
    # As it is called, in two processes: their number decides nothing.
    command = [sys.executable, str(ROOT / "benchmarks" / "gate.py"), *words, "--jobs", "2"]
    answer = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert (answer.stdout, answer.returncode) == (printed, 0)


@pytest.mark.parametrize(
    "words",
    [["--runs", "0"], ["--jobs", "0"], ["--n", "1"], ["--replicates", "1"], ["--drop", "0.6"], ["--correlations", "1"]],
)
def test_refuses_what_makes_no_sense(script, words: list[str]) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=words[0]):
        script.main(words)


@pytest.mark.slow
def test_at_full_size_it_is_wrong_in_at_most_one_run_of_twenty(script) -> None:  # type: ignore[no-untyped-def]
    runs = 200
    counts = trials(script, runs, n=2000, shared=(0.9,), replicates=200)
    for case in (script.NEW_IMAGES, "the same, scores correlate 0.9"):
        assert binomtest(counts["fails", case], runs, 0.05, alternative="greater").pvalue > 0.001
    for base in script.DROPS:
        assert counts["caught", "the same, scores correlate 0.9", f"{base:g}"] >= 0.95 * runs
