"""Scores beyond the paper: the pure functions, then the suite that asks for them."""

import dataclasses
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from benchmark import main, parser
from evaluators.measurement import Measurement
from evaluators.metrics.auroc import auroc, auroc_interval
from evaluators.ood import OODResult, OODSuite, load_scores
from evaluators.ood.scores import SCORES, parse_scores
from evaluators.ood.scores.input_complexity import NATS_PER_BYTE, InputComplexity, input_complexity, webp_bytes
from evaluators.ood.scores.likelihood_ratio import likelihood_ratio
from evaluators.ood.scores.likelihood_regret import negative_regret
from evaluators.ood.scores.score_norm import negative_norm
from evaluators.ood.scores.typicality import typicality
from evaluators.pairing import score_correlations
from evaluators.reproduce import stored_options
from evaluators.result_file import read_results
from evaluators.score_store import ScoreStore
from evaluators.subjects import SystemUnderTest
from leaderboards import cli
from vaebm.cli import run as call
from vaebm.data import DataUnavailable, ImageSet
from vaebm.errors import UserError

SHAPE = (8, 8, 3)
finite = st.floats(-1e6, 1e6, allow_nan=False)

# --- pure functions ---------------------------------------------------------------------------------------------------


def test_typicality_finds_what_is_too_likely_under_a_gaussian() -> None:
    """Points near the mode of N(0, I) have the highest density and none of the mass: ||x||^2 is chi-square with d."""
    rng, d = np.random.default_rng(0), 200
    log_p = lambda x: norm.logpdf(x).sum(axis=1)
    inside, train, mode = (log_p(scale * rng.normal(size=(400, d))) for scale in (1, 1, 0.5))
    entropy = -d / 2 * math.log(2 * math.pi * math.e)  # E log p(x)
    assert train.mean() == pytest.approx(entropy, abs=5 * math.sqrt(d / 2 / 400))
    assert auroc(inside, mode) == 0
    assert auroc(typicality(inside, entropy), typicality(mode, entropy)) == 1


def test_batch_typicality_is_the_loop_over_batches() -> None:
    scores = np.random.default_rng(1).normal(-50, 4, 47)
    found = typicality(scores, -49.0, 5)
    assert len(found) == 9  # two are left over
    for i, value in enumerate(found):
        total = 0.0
        for j in range(5):
            total += scores[5 * i + j]
        assert value == pytest.approx(-abs(total / 5 - -49.0), rel=1e-12)
    np.testing.assert_array_equal(typicality(scores, -49.0), -np.abs(scores + 49))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-1000, 1000), min_size=4, max_size=30), st.integers(-10_000, 10_000), st.integers(1, 4))
def test_a_constant_in_log_p_changes_no_typicality(scores: list[int], constant: int, batch: int) -> None:
    values, mean = np.array(scores, dtype=float), float(np.mean(scores))
    shifted = typicality(values + constant, mean + constant, batch)
    np.testing.assert_allclose(shifted, typicality(values, mean, batch), atol=1e-8)
    assert (shifted <= 0).all()


def test_likelihood_ratio_of_two_gaussians() -> None:
    x, scale = np.linspace(-3, 3, 25), 2.0
    found = likelihood_ratio(norm.logpdf(x), norm.logpdf(x, scale=scale))
    np.testing.assert_allclose(found, math.log(scale) - x**2 / 2 * (1 - scale**-2), atol=1e-12)
    with pytest.raises(ValueError, match="found 25 scores and 24"):
        likelihood_ratio(x, x[1:])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=20))
def test_likelihood_ratio_is_antisymmetric(pairs: list[tuple[float, float]]) -> None:
    a, b = np.array(pairs).T
    np.testing.assert_array_equal(likelihood_ratio(a, b), -likelihood_ratio(b, a))


@pytest.mark.parametrize(("codec", "how"), [("PNG", {"compress_level": 9}), ("WEBP", {"lossless": True, "method": 4})])
@pytest.mark.parametrize("channels", [1, 3])
def test_input_complexity_against_pillow(codec: str, how: dict, channels: int) -> None:
    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (5, 8, 8, channels), dtype=np.uint8)
    images[0] = 7  # flat
    score = InputComplexity(codec.lower())
    lengths = score._bytes(images)
    for image, length in zip(images, lengths, strict=True):
        file = io.BytesIO()
        picture = Image.fromarray(image.squeeze())
        (picture.convert("RGB") if codec == "WEBP" else picture).save(file, codec, **how)
        assert length == len(file.getvalue())
        decoded = np.asarray(Image.open(file).convert("RGB" if channels == 3 else "L"))
        np.testing.assert_array_equal(decoded, image.squeeze())  # nothing is lost
    assert lengths[0] == lengths.min()
    log_p = rng.normal(-500, 9, 5)
    bits = -log_p / math.log(2) - 8 * lengths  # S of the reference
    np.testing.assert_allclose(input_complexity(log_p, lengths), -bits * math.log(2), rtol=1e-12)
    assert pytest.approx(8 * math.log(2)) == NATS_PER_BYTE
    assert codec.lower() in score.version.lower()


def test_regret_and_norm_change_the_sign_and_refuse_what_cannot_be() -> None:
    np.testing.assert_array_equal(negative_regret([0, 2.5]), [0, -2.5])
    np.testing.assert_array_equal(negative_norm([0, 2.5]), [0, -2.5])
    for function in (negative_regret, negative_norm):
        with pytest.raises(ValueError, match="at least 0"):
            function([1, -0.1])
        with pytest.raises(UserError, match="NaN"):
            function([1, np.nan])


# --- names ------------------------------------------------------------------------------------------------------------


def test_names_have_one_spelling() -> None:
    text = "typicality:1,typicality:25,likelihood_ratio:glow,input_complexity,input_complexity:png,likelihood_regret:3,score_norm"
    assert [score.spec for score in parse_scores(text)] == [
        *("typicality", "typicality:25", "likelihood_ratio:glow", "input_complexity:webp", "input_complexity:png"),
        *("likelihood_regret:3", "score_norm"),
    ]
    assert parse_scores("") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("typicalty", r"--score typicalty: unknown score 'typicalty'.*Did you mean 'typicality'"),
        ("typicality:0", r"--score typicality:0: found '0', needed the number of images in a batch"),
        ("typicality:many", "whole number of at least 1"),
        ("typicality:", "found nothing behind the colon"),
        ("likelihood_ratio", "needed likelihood_ratio:BACKGROUND"),
        ("input_complexity:pmg", r"unknown codec 'pmg'.*Did you mean 'png'"),
        ("likelihood_regret:1.5", "the number of steps"),
        ("score_norm:2", "takes none"),
        ("input_complexity,input_complexity:webp", "named twice"),
    ],
)
def test_bad_names_and_parameters(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_scores(text)


# --- in the suite -----------------------------------------------------------------------------------------------------


def images(name: str, n: int, contrast: float, seed: int) -> ImageSet:
    pixels = 128 + contrast * np.random.default_rng(seed).normal(size=(n, *SHAPE))
    return ImageSet(name, np.clip(pixels, 0, 255).astype(np.uint8), source="made here", split="test")


IN, FLAT, NOISY = images("cifar10", 60, 30, 0), images("svhn", 50, 10, 1), images("cifar100", 40, 34, 2)
TRAIN = dataclasses.replace(images("cifar10", 30, 30, 3), split="train")
OUT = {"svhn": FLAT, "cifar100": NOISY}


class Smooth:
    """log p falls with contrast: the flat set is the likeliest. It has a gradient and a regret, too."""

    def __init__(self) -> None:
        self.calls = 0

    def score(self, images: np.ndarray) -> np.ndarray:
        self.calls += len(images)
        return -images.reshape(len(images), -1).std(axis=1).astype(np.float64)

    def score_gradient_norm(self, images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1).mean(axis=1).astype(np.float64)

    def likelihood_regret(self, images: np.ndarray, steps: int) -> np.ndarray:
        return steps * images.reshape(len(images), -1).var(axis=1).astype(np.float64)


class Terms:
    """The same, as a sum of terms."""

    def score_terms(self, images: np.ndarray) -> dict[str, np.ndarray]:
        whole = Smooth().score(images)
        return {"log_p": whole / 2 + 3, "neg_energy": whole / 2}

    def score(self, images: np.ndarray) -> np.ndarray:
        return sum(self.score_terms(images).values())


class GradientOnly:
    """No density, as a score network."""

    def score_gradient_norm(self, images: np.ndarray) -> np.ndarray:
        return Smooth().score_gradient_norm(images)


class Flat:
    """A background that knows the mean alone."""

    def score(self, images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1).mean(axis=1).astype(np.float64)


def subject(name: str, scorer: object, **kwargs) -> SystemUnderTest:
    about = {"score": "log p(x), nats", "estimator": "exact"}
    return SystemUnderTest(name, scorer, SHAPE, "mini", {"weights": name}, **{"protocol": about} | kwargs)


def run(score: str, *systems: SystemUnderTest, **kwargs) -> OODResult:
    given = {"reference": TRAIN, "out_dists": OUT} | kwargs
    subjects = {system.name: system for system in systems}
    return OODSuite(replicates=30).run(subjects, IN, extra=parse_scores(score), **given)


def pick(result: OODResult, **wanted: str) -> list[Measurement]:
    return [row for row in result.rows if all(getattr(row, key) == value for key, value in wanted.items())]


def one(result: OODResult, **wanted: str) -> Measurement:
    found = pick(result, **wanted)
    assert len(found) == 1, (wanted, found)
    return found[0]


def s(images: ImageSet) -> np.ndarray:
    return Smooth().score(images.images)


def test_rows_of_an_extra_score_are_those_of_its_values() -> None:
    result = run("typicality", subject("plain", Smooth()))
    mean = s(TRAIN).mean()
    inside, outside = -np.abs(s(IN) - mean), -np.abs(s(FLAT) - mean)
    row = one(result, system="plain", dataset="svhn", metric="auroc", role="diagnostic", variant="score:typicality")
    assert row.value == pytest.approx(roc_auc_score([1] * 60 + [0] * 50, np.r_[inside, outside]), abs=1e-12)
    interval = auroc_interval(inside, outside)
    assert (row.low, row.high, row.n) == (interval.low, interval.high, 110)
    assert row.protocol["score"] == "-|s - mean of s over training images|"
    assert "s = log p(x), nats (exact); mean of s over 30 cifar10 train images, made here" in row.protocol["estimator"]
    assert row.provenance["typicality"] == {"training_mean": mean, "training_images": TRAIN.sha256}
    own = one(result, system="plain", dataset="svhn", metric="auroc", role="headline")
    assert own.value < 0.1 < 0.9 < row.value
    metrics = {(r.metric, r.dataset) for r in pick(result, variant="score:typicality")}
    assert {("auroc", "svhn"), ("aupr", "svhn"), ("fpr95", "cifar100"), ("auroc", "mean")} <= metrics


def test_the_papers_number_is_never_replaced() -> None:
    everything = "typicality,typicality:5,input_complexity,likelihood_regret,score_norm,likelihood_ratio:flat"
    systems = subject("plain", Smooth()), subject("flat", Flat())
    bare, more = run("", *systems), run(everything, *systems)
    kept = [row for row in more.rows if not row.variant.startswith("score:")]
    assert kept == bare.rows
    assert more.scores.keys() == bare.scores.keys()
    places = [(r.system, r.dataset, r.metric, r.role, r.variant) for r in more.rows]
    assert len(set(places)) == len(places)
    assert [Measurement.from_json(row) for row in json.loads(json.dumps([r.to_json() for r in more.rows]))] == more.rows


def test_a_sum_of_terms_is_taken_whole() -> None:
    text = "typicality,input_complexity:png"
    plain, terms = run(text, subject("plain", Smooth())), run(text, subject("terms", Terms()))
    for score in ("score:typicality", "score:input_complexity:png"):
        rows = [one(r, variant=score, dataset="svhn", metric="auroc").value for r in (plain, terms)]
        assert rows[0] == pytest.approx(rows[1], abs=1e-9)


def test_batches_are_what_n_counts_and_too_few_of_them_leave_a_cell_empty() -> None:
    result = run("typicality:25", subject("plain", Smooth()))
    row = one(result, dataset="svhn", metric="auroc", variant="score:typicality:25")
    assert (row.n, row.protocol["n_in"], row.protocol["n_out"]) == (4, 50, 50)  # 2 + 2 batches of 25
    mean = s(TRAIN).mean()
    batches = lambda x: [-abs(x[i : i + 25].mean() - mean) for i in (0, 25)]
    assert row.value == auroc(batches(s(IN)), batches(s(FLAT)))
    empty = one(result, dataset="cifar100", metric="auroc", variant="score:typicality:25")
    assert (empty.value, empty.note) == (
        None,
        "cifar100: found 1 batch of 25, needed at least 2 (--num-images)",
    )
    assert one(result, dataset="mean", variant="score:typicality:25").value is None
    none = run("typicality:31", subject("plain", Smooth()))
    assert (
        "cifar10: found 1 batch of 31" in one(none, dataset="svhn", metric="auroc", variant="score:typicality:31").note
    )


def test_without_training_images_typicality_is_empty_and_says_why() -> None:
    reason = DataUnavailable("cifar10 (train): not here")
    result = run("typicality,score_norm", subject("plain", Smooth()), reference=reason)
    row = one(result, dataset="svhn", metric="auroc", variant="score:typicality")
    assert (row.value, row.note) == (None, f"needs training images: {reason}")
    assert one(result, dataset="svhn", metric="auroc", variant="score:score_norm").value is not None


def test_missing_sets_have_the_reason_of_the_headline() -> None:
    gone = DataUnavailable("celeba: not here")
    result = run("score_norm", subject("plain", Smooth()), out_dists={**OUT, "celeba": gone})
    assert one(result, dataset="celeba", metric="auroc", variant="score:score_norm").note == str(gone)


def test_likelihood_ratio_takes_another_system_as_background() -> None:
    systems = subject("plain", Smooth()), subject("flat", Flat())
    result = run("likelihood_ratio:flat", *systems)
    ratio = lambda x: s(x) - Flat().score(x.images)
    row = one(result, system="plain", dataset="svhn", metric="auroc", variant="score:likelihood_ratio:flat")
    assert row.value == auroc(ratio(IN), ratio(FLAT))
    assert row.provenance["likelihood_ratio:flat"] == {"background": {"weights": "flat"}}
    itself = one(result, system="flat", dataset="svhn", metric="auroc", variant="score:likelihood_ratio:flat")
    assert itself.note == "is the background itself"
    with pytest.raises(UserError, match=r"--score likelihood_ratio:flut: no system under test.*Did you mean 'flat'"):
        run("likelihood_ratio:flut", *systems)
    with pytest.raises(UserError, match="the background norm: has no scorer"):
        run("likelihood_ratio:norm", systems[0], subject("norm", GradientOnly()))


def test_input_complexity_names_its_codec() -> None:
    result = run("input_complexity:webp", subject("plain", Smooth()))
    row = one(result, dataset="svhn", metric="auroc", variant="score:input_complexity:webp")
    value = lambda x: s(x) + 8 * math.log(2) * webp_bytes(x.images)
    assert row.value == auroc(value(IN), value(FLAT))
    assert "libwebp" in row.protocol["estimator"]
    assert "libwebp" in row.provenance["input_complexity:webp"]["codec"]


def test_a_system_with_a_gradient_and_no_density(tmp_path: Path) -> None:
    system = subject("ncsn", GradientOnly(), protocol={})
    result = run("score_norm", system, subject("plain", Smooth()), out=tmp_path)
    assert one(result, system="ncsn", dataset="svhn", metric="auroc", role="headline").note == "has no scorer"
    row = one(result, system="ncsn", dataset="svhn", metric="auroc", variant="score:score_norm")
    norms = lambda x: -GradientOnly().score_gradient_norm(x.images)
    assert row.value == auroc(norms(IN), norms(FLAT))
    assert "ncsn" not in result.scores  # nothing that is called its score
    with np.load(tmp_path / "ood_scores.npz") as file:
        np.testing.assert_array_equal(file["ncsn/svhn/score:score_norm"], norms(FLAT))
        assert "ncsn/svhn/score" not in file.files
    odd = dataclasses.replace(system, image_shape=(16, 16, 3))
    with pytest.raises(UserError, match="ncsn: cifar10"):
        run("score_norm", odd)
    run("score_norm", subject("plain", Smooth()), dataclasses.replace(odd, system=object()))  # is shown no images


def test_regret_depends_on_its_steps_and_is_kept_by_them(tmp_path: Path) -> None:
    asked: list[int] = []

    class Counting(Smooth):
        def likelihood_regret(self, images: np.ndarray, steps: int) -> np.ndarray:
            asked.append(steps)
            return super().likelihood_regret(images, steps)

    store = ScoreStore(tmp_path)
    result = run("likelihood_regret,likelihood_regret:3", subject("vae", Counting()), store=store)
    assert set(asked) == {10, 3}
    row = one(result, dataset="svhn", metric="auroc", variant="score:likelihood_regret:3")
    assert "3 steps of Adam" in row.protocol["estimator"]
    again = run("likelihood_regret:3,likelihood_regret", subject("vae", Counting()), store=store)
    assert len(asked) == 6  # two scores of three sets
    assert one(again, dataset="svhn", metric="auroc", variant="score:likelihood_regret:3") == row


def test_training_images_are_scored_once(tmp_path: Path) -> None:
    scorer, store = Smooth(), ScoreStore(tmp_path)
    run("typicality,typicality:5", subject("plain", scorer), store=store)
    assert scorer.calls == len(IN) + len(FLAT) + len(NOISY) + len(TRAIN)
    run("typicality:2", subject("plain", scorer), store=store)
    assert scorer.calls == len(IN) + len(FLAT) + len(NOISY) + len(TRAIN)


def test_a_score_that_no_system_has_is_refused_before_anything_is_scored() -> None:
    scorer = Smooth()
    with pytest.raises(
        UserError, match=r"--score likelihood_regret:10: no chosen system has it \(flat: has no likelihood_regret"
    ):
        run("likelihood_regret", subject("flat", Flat()))
    with pytest.raises(UserError, match="there is none"):
        run(
            "typicality",
            scores={"mine": {"cifar10": np.arange(9.0), "svhn": np.arange(8.0), "cifar100": np.arange(7.0)}},
        )
    assert scorer.calls == 0


def test_scores_without_their_images_have_no_extra_ones() -> None:
    mine = {"cifar10": np.arange(9.0), "svhn": np.arange(8.0), "cifar100": np.arange(7.0)}
    result = run("typicality", subject("plain", Smooth()), scores={"mine": mine})
    row = one(result, system="mine", dataset="svhn", metric="auroc", variant="score:typicality")
    assert row.note == "scores were given without their images"


def test_the_file_of_scores_still_pairs_runs_and_feeds_the_suite(tmp_path: Path) -> None:
    for name, score in (("a", ""), ("b", "typicality:20,score_norm")):
        run(score, subject("plain", Smooth()), out=tmp_path / name)
    files = [tmp_path / name / "ood_scores.npz" for name in ("a", "b")]
    found = score_correlations(*files, "cifar10")
    assert found["plain", "cifar100"].correlation == pytest.approx(1)
    np.testing.assert_array_equal(load_scores(files[1], "plain")["svhn"], s(FLAT))
    with np.load(files[1]) as file:
        assert len(file["plain/cifar10/score:typicality:20"]) == 3


# --- front door -------------------------------------------------------------------------------------------------------

DOOR = ["--suite", "ood", "--num-images", "8", "--ood", "svhn", "--no-progress", "--offline", "--cache", "none"]


def test_the_front_door_prints_records_and_repeats_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, score = tmp_path / "out", "typicality,typicality:2,score_norm"
    asked = ["--systems", "glow", "--score", score, "--reference-images", "6", "--out", str(out)]
    assert main([*DOOR, *asked]) == 0
    assert "Scores beyond the paper" in capsys.readouterr().out
    stored = read_results(out / "ood.json")
    variants = {row.variant for row in stored.rows if row.variant.startswith("score:")}
    assert variants == {"score:typicality", "score:typicality:2", "score:score_norm"}
    (row,) = [r for r in stored.rows if (r.variant, r.metric, r.dataset) == ("score:typicality", "auroc", "svhn")]
    assert "over 6 cifar10 train" in row.protocol["estimator"]
    assert (stored.options["score"], stored.options["reference_images"]) == (score, 6)
    again = stored_options(parser(), ["--reproduce", str(out / "ood.json")], cli.OPTIONS)
    assert (again.score, again.reference_images) == (score, 6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--systems", "none", "--score", "typicalty"], "Did you mean 'typicality'"),
        (["--systems", "none", "--score", "likelihood_regret"], "no chosen system has it"),
        (["--systems", "glow", "--score", "likelihood_ratio:nvae"], "add it to --systems"),
        (
            ["--systems", "none", "--reference-images", "5"],
            "--reference-images: no chosen score looks at training images",
        ),
        (
            ["--systems", "none", "--score", "typicality", "--reference-images", "0"],
            "--reference-images 0: needed at least 1",
        ),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(main, [*DOOR, "--out", str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error
    assert not (tmp_path / "out").exists()


def test_other_suites_do_not_listen(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(main, ["--suite", "modes", "--score", "typicality"]) == 2
    assert "--score: --suite modes does not listen to it, only ood" in capsys.readouterr().err


def test_help_names_every_score() -> None:
    text = parser().format_help()
    assert all(name in text for name in SCORES)


@pytest.mark.parametrize("told", ["", "pixels taken as continuous"])
def test_what_must_be_known_of_a_gradient_is_printed_with_its_norm(told: str) -> None:
    scorer = Smooth()
    scorer.gradient_note = told  # type: ignore[attr-defined]
    row = one(run("score_norm", subject("plain", scorer)), dataset="svhn", metric="auroc", variant="score:score_norm")
    assert row.protocol["estimator"].endswith(told)
    assert ("continuous" in row.protocol["estimator"]) == bool(told)
