"""The OOD suite with scorers of a few lines."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from evaluators.measurement import Measurement
from evaluators.metrics.image_statistics import IMAGE_STATISTICS
from evaluators.ood import COEFFICIENTS, OODResult, OODSuite, load_scores
from evaluators.score_store import ScoreStore
from evaluators.subjects import SystemUnderTest
from vaebm.data import DataUnavailable, ImageSet
from vaebm.errors import UserError

SHAPE = (8, 8, 3)


def images(name: str, n: int, low: int, high: int, seed: int) -> ImageSet:
    """Noise around grey; the contrast of each image is drawn from low..high."""
    rng = np.random.default_rng(seed)
    contrast = rng.uniform(low, high, size=(n, 1, 1, 1))
    pixels = np.clip(128 + contrast * rng.normal(size=(n, *SHAPE)), 0, 255).astype(np.uint8)
    return ImageSet(name, pixels, source="made here", split="test", notes=(f"contrast {low}-{high}",))


IN = images("cifar10", 90, 10, 50, 0)
SVHN = images("svhn", 70, 2, 20, 1)
CIFAR100 = images("cifar100", 60, 15, 60, 2)
SETS = {"svhn": SVHN, "cifar100": CIFAR100}
NO_CELEBA = DataUnavailable("celeba: not here; give --data-root")


class Brightness:
    """A plain scorer that remembers what it saw."""

    def __init__(self, batch: int = 1000) -> None:
        self.calls: list[int] = []
        self.batch = batch

    def score(self, images: np.ndarray) -> np.ndarray:
        self.calls.append(len(images))
        parts = [images[i : i + self.batch] for i in range(0, len(images), self.batch)]
        return np.concatenate([p.reshape(len(p), -1).astype(np.float64).mean(axis=1) for p in parts])


class TwoTerms:
    """log p - E, with E large."""

    def __init__(self) -> None:
        self.calls = 0

    def score_terms(self, images: np.ndarray) -> dict[str, np.ndarray]:
        self.calls += len(images)
        x = images.reshape(len(images), -1).astype(np.float64)
        return {"log_p": -1e4 - x.std(axis=1), "neg_energy": 2 * x.mean(axis=1)}

    def score(self, images: np.ndarray) -> np.ndarray:
        raise AssertionError("the terms are enough: an image would be scored twice")


def subject(name: str, scorer: object, **kwargs) -> SystemUnderTest:
    given = {"size": "mini", "fingerprint": {"weights": name}, "protocol": {"estimator": f"{name} itself"}} | kwargs
    return SystemUnderTest(name, scorer, SHAPE, **given)


def run(*systems: SystemUnderTest, out_dists: dict | None = None, suite: OODSuite | None = None, **kwargs) -> OODResult:
    suite = suite or OODSuite(replicates=50)
    return suite.run({s.name: s for s in systems}, IN, SETS if out_dists is None else out_dists, **kwargs)


def pick(result: OODResult, **wanted: object) -> list[Measurement]:
    return [r for r in result.rows if all(getattr(r, field) == value for field, value in wanted.items())]


def one(result: OODResult, **wanted: object) -> Measurement:
    (row,) = pick(result, **wanted)
    return row


def oracle(inside: np.ndarray, outside: np.ndarray) -> float:
    return roc_auc_score(np.r_[np.ones(len(inside)), np.zeros(len(outside))], np.r_[inside, outside])


@pytest.fixture(scope="module")
def result() -> OODResult:
    return run(subject("plain", Brightness()), subject("vaebm", TwoTerms()), seed=3)


def test_headline_rows(result: OODResult) -> None:
    for system in ("plain", "vaebm"):
        for name, outer in SETS.items():
            for metric in ("auroc", "aupr", "fpr95"):
                row = one(result, system=system, dataset=name, metric=metric, role="headline")
                assert row.variant == ""
                assert row.low <= row.value <= row.high
                assert (row.suite, row.seed, row.size, row.n) == ("ood", 3, "mini", len(IN) + len(outer))
                assert row.protocol["in_distribution"] == "cifar10"
                assert row.protocol["estimator"] == f"{system} itself"
                assert (row.protocol["n_in"], row.protocol["n_out"]) == (len(IN), len(outer))
                assert row.protocol["duplicates_removed"] == 0
                assert row.protocol["out_notes"] == outer.notes[0]
                assert row.provenance["data"] == {"cifar10": IN.sha256, name: outer.sha256}
                assert row.provenance["fingerprint"] == {"weights": system}
            scores = result.scores[system]
            auroc = one(result, system=system, dataset=name, metric="auroc", role="headline").value
            assert auroc == pytest.approx(oracle(scores["cifar10"]["score"], scores[name]["score"]), abs=1e-12)
    base_rate = one(result, system="plain", dataset="svhn", metric="aupr").protocol["base_rate"]
    assert base_rate == len(IN) / (len(IN) + len(SVHN))


def test_mean_row(result: OODResult) -> None:
    for system in ("plain", "vaebm", *IMAGE_STATISTICS):
        row = one(result, system=system, dataset="mean", variant="")
        parts = [one(result, system=system, dataset=name, metric="auroc", variant="").value for name in SETS]
        assert row.metric == "auroc"
        assert row.value == pytest.approx(np.mean(parts))
        assert row.low < row.value < row.high
        assert row.n == len(IN) + len(SVHN) + len(CIFAR100)
        assert row.protocol["mean_of"] == ["svhn", "cifar100"]
    assert not pick(run(subject("plain", Brightness()), out_dists={"svhn": SVHN}), dataset="mean")


def test_terms_and_coefficients(result: OODResult) -> None:
    terms = result.scores["vaebm"]
    assert list(terms["svhn"]) == ["log_p", "neg_energy", "score"]
    np.testing.assert_array_equal(terms["svhn"]["score"], terms["svhn"]["log_p"] + terms["svhn"]["neg_energy"])
    for term in ("log_p", "neg_energy"):
        for name in SETS:
            row = one(result, system="vaebm", dataset=name, metric="auroc", role="diagnostic", variant=term)
            assert row.value == pytest.approx(oracle(terms["cifar10"][term], terms[name][term]), abs=1e-12)
        assert one(result, system="vaebm", dataset="mean", role="diagnostic", variant=term)
        sd = one(result, system="vaebm", metric=f"sd_{term}")
        assert (sd.dataset, sd.role, sd.n) == ("cifar10", "diagnostic", len(IN))
        assert sd.value == pytest.approx(np.std(terms["cifar10"][term], ddof=1))
        assert sd.low < sd.value < sd.high
    curve = {r.variant: r for r in pick(result, metric="auroc_at_coefficient", dataset="svhn")}
    assert list(curve) == [f"c={c:g}" for c in COEFFICIENTS]
    headline = one(result, system="vaebm", dataset="svhn", metric="auroc", role="headline")
    assert curve["c=1"].value == headline.value
    assert curve["c=0"].value == one(result, system="vaebm", dataset="svhn", metric="auroc", variant="log_p").value
    energy = one(result, system="vaebm", dataset="svhn", metric="auroc", variant="neg_energy")
    assert curve["c=100"].value == pytest.approx(energy.value, abs=0.02)
    assert len({row.value for row in curve.values()}) > 3  # the weight of the energy moves the number
    assert headline.protocol["scale_of"] == "neg_energy"
    assert curve["c=1"].protocol["coefficient_on"] == "neg_energy"
    assert not pick(result, system="plain", role="diagnostic")
    assert "scale_of" not in one(result, system="plain", dataset="svhn", metric="auroc").protocol


def test_only_an_energy_has_a_coefficient() -> None:
    class Joint(Brightness):  # log p(x, z) = log p(x | z) + log p(z): both scales are the model's own
        def score_terms(self, images: np.ndarray) -> dict[str, np.ndarray]:
            return {"log_likelihood": self.score(images), "log_prior": -self.score(images) / 3}

    result = run(subject("lebm", Joint()))
    assert one(result, system="lebm", dataset="svhn", metric="auroc", role="diagnostic", variant="log_prior")
    assert not pick(result, system="lebm", metric="auroc_at_coefficient")
    assert "scale_of" not in one(result, system="lebm", dataset="svhn", metric="auroc", role="headline").protocol


def test_controls(result: OODResult) -> None:
    for name, statistic in IMAGE_STATISTICS.items():
        for dataset, outer in SETS.items():
            row = one(result, system=name, dataset=dataset, metric="auroc")
            assert row.role == "control"
            assert row.value == pytest.approx(oracle(statistic.score(IN.images), statistic.score(outer.images)))
            assert statistic.higher_means in row.protocol["estimator"]
        for system, variant, term in (
            ("plain", name, "score"),
            ("vaebm", name, "score"),
            ("vaebm", f"log_p:{name}", "log_p"),
        ):
            row = one(result, system=system, metric="rank_correlation", variant=variant)
            assert (row.role, row.dataset, row.n) == ("control", "cifar10", len(IN))
            expected = spearmanr(result.scores[system]["cifar10"][term], statistic.score(IN.images)).statistic
            assert row.value == pytest.approx(expected, abs=1e-12)
    # fixed signs: these sets are less contrasted and more contrasted than the inside, and stay on their sides of 0.5
    assert one(result, system="pixel_std", dataset="svhn", metric="auroc").value > 0.9
    assert one(result, system="pixel_std", dataset="cifar100", metric="auroc").value < 0.5
    assert "PNG" in one(result, system="codec_bytes", dataset="svhn", metric="auroc").protocol["codec"]


def test_rows_are_json_and_distinct(result: OODResult) -> None:
    rows = [row.to_json() for row in result.rows]
    assert [Measurement.from_json(row) for row in json.loads(json.dumps(rows, allow_nan=False))] == result.rows
    places = [(r.system, r.dataset, r.metric, r.role, r.variant) for r in result.rows]
    assert len(set(places)) == len(places)


def test_every_set_is_scored_once() -> None:
    plain, two = Brightness(), TwoTerms()
    run(subject("plain", plain), subject("vaebm", two))
    total = len(IN) + len(SVHN) + len(CIFAR100)
    assert sum(plain.calls) == total
    assert two.calls == total


def test_duplicates_go_before_scoring() -> None:
    mixed = dataclasses.replace(CIFAR100, images=np.concatenate([CIFAR100.images, IN.images[:7]]))
    found, clean = (
        run(subject("plain", Brightness()), out_dists={"svhn": SVHN, "cifar100": outer}) for outer in (mixed, CIFAR100)
    )
    row = one(found, system="plain", dataset="cifar100", metric="auroc")
    assert row.protocol["duplicates_removed"] == 7
    assert row.protocol["n_out"] == len(CIFAR100)
    assert row.value == one(clean, system="plain", dataset="cifar100", metric="auroc").value
    assert one(found, system="plain", dataset="mean").protocol["duplicates_removed"] == [0, 7]
    with pytest.raises(UserError, match="90 of them also in cifar10"):
        run(subject("plain", Brightness()), out_dists={"copy": IN})


def test_missing_data_leaves_cells_empty() -> None:
    result = run(subject("plain", Brightness()), subject("vaebm", TwoTerms()), out_dists={**SETS, "celeba": NO_CELEBA})
    for system in ("plain", "vaebm", "pixel_std"):
        for metric in ("auroc", "aupr", "fpr95"):
            row = one(result, system=system, dataset="celeba", metric=metric, variant="")
            assert (row.value, row.note) == (None, str(NO_CELEBA))
        mean = one(result, system=system, dataset="mean", variant="")
        assert mean.value is None
        assert "celeba" in mean.note
        assert one(result, system=system, dataset="svhn", metric="auroc", variant="").value is not None
    assert result.out_dists == ("svhn", "cifar100", "celeba")
    assert set(result.scores["plain"]) == {"cifar10", "svhn", "cifar100"}
    nothing = run(subject("plain", Brightness()), out_dists={"celeba": NO_CELEBA})
    assert one(nothing, system="plain", metric="auroc").value is None


def test_terms_of_a_missing_set_are_empty_for_the_same_reason() -> None:
    result = run(subject("vaebm", TwoTerms()), out_dists={**SETS, "celeba": NO_CELEBA})
    rows = pick(result, role="diagnostic", dataset="celeba", metric="auroc")
    assert len(rows) == 2
    assert {(row.value, row.note) for row in rows} == {(None, str(NO_CELEBA))}


@pytest.mark.parametrize("scorer", [None, object()])
def test_a_system_without_scorer_says_so(scorer: object) -> None:
    # its images may have any shape: they are never shown to it
    odd = dataclasses.replace(subject("sampler", scorer), image_shape=(64, 64, 3))
    result = run(odd, subject("plain", Brightness()))
    rows = pick(result, system="sampler")
    assert rows
    assert {(row.value, row.note) for row in rows} == {(None, "has no scorer")}
    assert {row.dataset for row in rows} == {"svhn", "cifar100", "mean", "cifar10"}
    assert "sampler" not in result.scores


def test_a_constant_scorer_has_no_rank_correlation() -> None:
    class Constant:
        def score(self, images: np.ndarray) -> np.ndarray:
            return np.full(len(images), 2.5)

    result = run(subject("constant", Constant()))
    assert one(result, system="constant", dataset="svhn", metric="auroc").value == 0.5
    correlations = pick(result, system="constant", metric="rank_correlation")
    assert len(correlations) == len(IMAGE_STATISTICS)
    assert all(row.value is None and "equal" in row.note for row in correlations)


# --- store, resume, batch ---------------------------------------------------------------------------------------------


def test_batch_size_cache_and_resume_give_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScoreStore.scores, "__kwdefaults__", {**ScoreStore.scores.__kwdefaults__, "chunk": 25})
    plain = run(subject("plain", Brightness(batch=200)))

    class Dies(Brightness):
        def score(self, images: np.ndarray) -> np.ndarray:
            if len(self.calls) == 5:  # in-distribution takes four chunks, so this is inside the first outer set
                raise KeyboardInterrupt
            return super().score(images)

    with pytest.raises(KeyboardInterrupt):
        run(subject("plain", Dies()), store=ScoreStore(tmp_path))
    again = Brightness(batch=16)
    resumed = run(subject("plain", again), store=ScoreStore(tmp_path))
    assert sum(again.calls) == len(SVHN) - 25 + len(CIFAR100)
    unused = Brightness()
    cached = run(subject("plain", unused), store=ScoreStore(tmp_path))
    assert unused.calls == []
    assert plain.rows == resumed.rows == cached.rows


def test_cache_key_is_weights_protocol_and_pixels_not_names(tmp_path: Path) -> None:
    def calls(system: SystemUnderTest, sets: dict = SETS) -> int:
        scorer = Brightness()
        run(dataclasses.replace(system, system=scorer), out_dists=sets, store=ScoreStore(tmp_path))
        return sum(scorer.calls)

    base = subject("plain", None)
    everything = len(IN) + len(SVHN) + len(CIFAR100)
    assert calls(base) == everything
    assert calls(base) == 0
    assert calls(dataclasses.replace(base, name="renamed")) == 0
    assert calls(base, {"renamed": SVHN}) == 0
    assert calls(dataclasses.replace(base, fingerprint={"weights": "other"})) == everything
    assert calls(dataclasses.replace(base, protocol={"estimator": "IW-50"})) == everything
    changed = SVHN.images.copy()
    changed[0, 0, 0, 0] ^= 1
    assert calls(base, {"svhn": dataclasses.replace(SVHN, images=changed)}) == len(SVHN)


def test_a_system_without_fingerprint_is_never_cached(tmp_path: Path) -> None:
    scorer = Brightness()
    for _ in range(2):
        run(subject("plain", scorer, fingerprint={}), store=ScoreStore(tmp_path))
    assert sum(scorer.calls) == 2 * (len(IN) + len(SVHN) + len(CIFAR100))


# --- options ----------------------------------------------------------------------------------------------------------


def test_options_take_effect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def row(**kwargs) -> Measurement:
        return one(run(subject("plain", Brightness()), **kwargs), system="plain", dataset="svhn", metric="aupr")

    base = row()
    assert row().low == base.low
    assert row(seed=1).low != base.low
    assert row(seed=1).seed == 1
    assert row(suite=OODSuite(replicates=80)).low != base.low
    assert "80 resamples" in row(suite=OODSuite(replicates=80)).protocol["interval"]
    two = run(subject("vaebm", TwoTerms()), suite=OODSuite(replicates=20, coefficients=(0.5, 2)))
    variants = {r.variant for r in pick(two, metric="auroc_at_coefficient")}
    assert variants == {"c=0.5", "c=2"}
    assert capsys.readouterr().err == ""
    run(subject("plain", Brightness()), progress=True)
    captured = capsys.readouterr()
    assert "plain on svhn" in captured.err
    assert captured.out == ""
    with pytest.raises(UserError, match="0 resamples"):
        OODSuite(replicates=0)


# --- scores from and to files -----------------------------------------------------------------------------------------


def test_saved_scores_feed_the_suite_again(tmp_path: Path, result: OODResult) -> None:
    out = tmp_path / "results" / "a"
    first = run(subject("plain", Brightness()), subject("vaebm", TwoTerms()), out=out, seed=3)
    file = out / "ood_scores.npz"
    with np.load(file) as saved:
        assert "vaebm/svhn/log_p" in saved.files
        np.testing.assert_array_equal(saved["vaebm/svhn/score"], first.scores["vaebm"]["svhn"]["score"])
        assert "pixel_std/cifar10/score" in saved.files
    assert [p.name for p in out.iterdir()] == ["ood_scores.npz"]
    fed = run(scores={"mine": load_scores(file, "vaebm")}, seed=3)
    for metric in ("auroc", "aupr", "fpr95"):
        for name in SETS:
            ours = one(fed, system="mine", dataset=name, metric=metric)
            theirs = one(result, system="vaebm", dataset=name, metric=metric, role="headline", variant="")
            assert (ours.value, ours.low, ours.high) == (theirs.value, theirs.low, theirs.high)
    with pytest.raises(UserError, match="Did you mean 'vaebm'"):
        load_scores(file, "veabm")
    with pytest.raises(UserError, match="which system"):
        load_scores(file)


def test_a_users_scores_need_no_model(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "mine.npz",
        cifar10=rng.normal(1, 1, 500),
        svhn=rng.normal(0, 1, 400).astype(np.float32),
        cifar100=rng.integers(3, size=30),
        extra=np.ones(2),
    )
    scores = load_scores(tmp_path / "mine.npz")
    assert all(values.dtype == np.float64 for values in scores.values())
    result = run(scores={"mine": scores})
    row = one(result, system="mine", dataset="svhn", metric="auroc")
    assert row.value == pytest.approx(oracle(scores["cifar10"], scores["svhn"]), abs=1e-12)
    assert (row.n, row.protocol["n_in"], row.protocol["duplicates_removed"]) == (900, 500, None)
    assert row.protocol["estimator"] == "scores given by the user"
    assert "data" not in row.provenance
    assert all(r.value is None and "without their images" in r.note for r in pick(result, metric="rank_correlation"))
    # a set whose images are not here can still come from the user's scores, or stay empty
    sets = {"svhn": SVHN, "celeba": NO_CELEBA}
    result = run(out_dists=sets, scores={"a": scores, "b": {**scores, "celeba": scores["svhn"]}})
    assert one(result, system="a", dataset="celeba", metric="auroc").note == str(NO_CELEBA)
    assert one(result, system="b", dataset="celeba", metric="auroc").value is not None
    assert one(result, system="b", dataset="mean").value is not None


def test_bad_scores_are_refused_before_anything_is_scored(tmp_path: Path) -> None:
    scorer = Brightness()
    good = {"cifar10": np.arange(9.0), "svhn": np.arange(8.0), "cifar100": np.arange(8.0)}
    cases = [
        ({**good, "svhn": np.r_[1, np.nan]}, r"--scores mine, set svhn: 1 of 2 scores are NaN"),
        ({**good, "svhn": np.ones((3, 2))}, r"set svhn: found an array of shape"),
        ({k: v for k, v in good.items() if k != "cifar100"}, r"no scores of cifar100, found cifar10, svhn"),
        ({k: v for k, v in good.items() if k != "cifar10"}, r"no scores of cifar10"),
    ]
    for scores, message in cases:
        with pytest.raises(UserError, match=message):
            run(subject("plain", scorer), scores={"mine": scores}, out=tmp_path / "out")
    assert scorer.calls == []
    assert not (tmp_path / "out").exists()


def test_bad_score_files(tmp_path: Path) -> None:
    def refuses(message: str, **arrays: np.ndarray) -> None:
        np.savez(tmp_path / "bad.npz", **arrays)
        with pytest.raises(UserError, match=message):
            load_scores(tmp_path / "bad.npz")

    with pytest.raises(UserError, match=r"nothing\.npz: no such file"):
        load_scores(tmp_path / "nothing.npz")
    refuses(r"bad\.npz, set svhn: 1 of 2 scores are NaN", svhn=np.array([0, np.nan]))
    refuses("shape", svhn=np.ones((2, 2)))
    refuses("at least 2", svhn=np.ones(1))
    refuses("real numbers", svhn=np.array(["a", "b"]))
    refuses("holds no arrays")
    refuses("plain numbers", svhn=np.array([{}, 1], dtype=object))
    np.save(tmp_path / "one.npy", np.ones(3))
    with pytest.raises(UserError, match="single array"):
        load_scores(tmp_path / "one.npy")
    (tmp_path / "text.npz").write_text("cifar10: 1")
    with pytest.raises(UserError, match=r"text\.npz: not an \.npz"):
        load_scores(tmp_path / "text.npz")


# --- other bad input --------------------------------------------------------------------------------------------------


def test_images_of_another_shape_name_system_and_set() -> None:
    scorer = Brightness()
    grey = ImageSet("mnist", np.zeros((5, 8, 8, 1), dtype=np.uint8), source="here", split="test")
    with pytest.raises(UserError, match=r"plain: mnist .* found 8x8 grey images, needed 8x8 RGB"):
        run(subject("plain", scorer), out_dists={"svhn": SVHN, "mnist": grey})
    assert scorer.calls == []


def test_clashing_and_unusable_names() -> None:
    plain = subject("plain", Brightness())
    array = {"cifar10": np.arange(9.0), "svhn": np.arange(8.0), "cifar100": np.arange(8.0)}
    with pytest.raises(UserError, match="'mean'"):
        run(plain, out_dists={"mean": SVHN})
    with pytest.raises(UserError, match="'cifar10'"):
        run(plain, out_dists={"cifar10": SVHN})
    with pytest.raises(UserError, match="measured already"):
        run(plain, scores={"plain": array})
    with pytest.raises(UserError, match="control statistic"):
        run(plain, scores={"pixel_std": array})
    with pytest.raises(UserError, match="without '/'"):
        run(plain, scores={"a/b": array})
    with pytest.raises(UserError, match="at least one"):
        run(plain, out_dists={})
    with pytest.raises(UserError, match="found 3 in-distribution"):
        OODSuite().run({}, IN.head(3), SETS)
    with pytest.raises(UserError, match="svhn: found 1 images"):
        run(plain, out_dists={"svhn": SVHN.head(1)})
    with pytest.raises(ValueError, match="passed under the name"):
        OODSuite().run({"other": plain}, IN, SETS)


def test_unwritable_out_folder_is_found_before_scoring(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    scorer = Brightness()
    with pytest.raises(UserError, match="--out"):
        run(subject("plain", scorer), out=tmp_path / "file")
    assert scorer.calls == []


def test_a_term_may_not_be_called_score() -> None:
    class Clash(TwoTerms):
        def score_terms(self, images: np.ndarray) -> dict[str, np.ndarray]:
            return {"score": np.zeros(len(images))}

    with pytest.raises(ValueError, match="may not be called 'score'"):
        run(subject("clash", Clash()))


def test_one_term_gives_a_spread_but_no_variants() -> None:
    class OneTerm(Brightness):
        def score_terms(self, images: np.ndarray) -> dict[str, np.ndarray]:
            return {"log_p": self.score(images)}

    result = run(subject("nvae", OneTerm()))
    assert [r.metric for r in pick(result, system="nvae", role="diagnostic")] == ["sd_log_p"]
    assert one(result, system="nvae", dataset="svhn", metric="auroc").note == ""


@pytest.mark.parametrize(("dataset", "told"), [("cifar10", False), ("", False), ("mnist", True)])
def test_a_system_trained_on_another_set_says_so_in_its_protocol(dataset: str, told: bool) -> None:
    found = run(subject("plain", Brightness(), dataset=dataset))
    row = one(found, system="plain", dataset=next(iter(SETS)), metric="auroc", role="headline")
    assert ("trained on mnist, not on cifar10" in row.protocol["estimator"]) == told
    assert ("trained_on" in row.protocol) == told
