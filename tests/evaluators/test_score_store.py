"""The score cache: same numbers whether computed, resumed or read, and no trust in files."""

from pathlib import Path

import numpy as np
import pytest

from evaluators.array_store import canonical_json, source_hash
from evaluators.score_store import ScoreStore
from vaebm.errors import UserError

IMAGES = np.random.default_rng(0).integers(256, size=(530, 4, 4, 1), dtype=np.uint8)
KEY = {"system": {"weights": "abc", "k": 10}, "data": "123"}


class Counting:
    """A scorer with two terms that counts its images and can die."""

    def __init__(self, dies_at: int | None = None, batch: int = 1000) -> None:
        self.seen, self.dies_at, self.batch = 0, dies_at, batch

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        if self.dies_at is not None and self.seen >= self.dies_at:
            raise KeyboardInterrupt
        self.seen += len(images)
        batches = [images[i : i + self.batch] for i in range(0, len(images), self.batch)]
        x = np.concatenate([b.reshape(len(b), -1).astype(np.float64).sum(axis=1) for b in batches])
        return {"log_p": np.log(x + 1) * 1e4, "neg_energy": -np.sqrt(x)}


def equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return list(a) == list(b) and all(x.tobytes() == y.tobytes() for x, y in zip(a.values(), b.values(), strict=True))


@pytest.fixture
def plain() -> dict[str, np.ndarray]:
    return ScoreStore(None).scores(KEY, IMAGES, Counting())


def test_nothing_is_kept_without_a_folder(plain: dict[str, np.ndarray], tmp_path: Path) -> None:
    scorer = Counting()
    store = ScoreStore(None)
    store.scores(KEY, IMAGES, scorer)
    store.scores(KEY, IMAGES, scorer)
    assert scorer.seen == 2 * len(IMAGES)
    assert list(plain) == ["log_p", "neg_energy"]
    assert plain["log_p"].dtype == np.float64


def test_second_run_reads(plain: dict[str, np.ndarray], tmp_path: Path) -> None:
    scorer = Counting()
    first = ScoreStore(tmp_path / "new" / "cache").scores(KEY, IMAGES, scorer)
    second = ScoreStore(tmp_path / "new" / "cache").scores(KEY, IMAGES, scorer)
    assert scorer.seen == len(IMAGES)
    assert equal(first, plain)
    assert equal(second, plain)
    assert len(list((tmp_path / "new" / "cache").iterdir())) == 1  # no chunks, no temporary files


@pytest.mark.parametrize("batch", [1, 16, 200])
def test_killed_run_resumes_at_the_chunk_bit_for_bit(plain: dict[str, np.ndarray], tmp_path: Path, batch: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        ScoreStore(tmp_path).scores(KEY, IMAGES, Counting(dies_at=400))
    resumed = Counting(batch=batch)
    seen: list[tuple[int, int]] = []
    found = ScoreStore(tmp_path).scores(KEY, IMAGES, resumed, progress=lambda done, total: seen.append((done, total)))
    assert resumed.seen == len(IMAGES) - 400
    assert equal(found, plain)
    assert seen == [(200, 530), (400, 530), (530, 530)]
    again = Counting()
    assert equal(ScoreStore(tmp_path).scores(KEY, IMAGES, again), plain)
    assert again.seen == 0


def test_chunk_size_takes_effect_and_changes_no_number(plain: dict[str, np.ndarray], tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        ScoreStore(tmp_path).scores(KEY, IMAGES, Counting(dies_at=1), chunk=50)
    assert [p.name for p in tmp_path.rglob("*.json")] == ["0-50.json"]
    assert equal(ScoreStore(tmp_path).scores(KEY, IMAGES, Counting(), chunk=7), plain)
    with pytest.raises(ValueError, match="chunk must be"):
        ScoreStore(tmp_path).scores(KEY, IMAGES, Counting(), chunk=0)


@pytest.mark.parametrize("key", [{**KEY, "data": "124"}, {**KEY, "system": {"weights": "abd", "k": 10}}, {}])
def test_another_key_is_another_entry(tmp_path: Path, key: dict) -> None:
    scorer = Counting()
    ScoreStore(tmp_path).scores(KEY, IMAGES, scorer)
    ScoreStore(tmp_path).scores(key, IMAGES, scorer)
    assert scorer.seen == 2 * len(IMAGES)


def test_the_order_of_a_key_does_not_matter(tmp_path: Path) -> None:
    scorer = Counting()
    ScoreStore(tmp_path).scores(KEY, IMAGES, scorer)
    ScoreStore(tmp_path).scores(dict(reversed(KEY.items())), IMAGES, scorer)
    assert scorer.seen == len(IMAGES)
    assert canonical_json({"b": 1, "a": [1.5]}) == '{"a":[1.5],"b":1}'


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    position = content.index(np.float64(ScoreStore(None).scores(KEY, IMAGES, Counting())["log_p"][0]).tobytes())
    content[position] ^= 1
    path.write_bytes(bytes(content))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def foreign(path: Path) -> None:
    np.save(path, np.zeros(530))


def other_key(path: Path) -> None:
    (described,) = path.parent.glob("*.json")
    described.write_text(described.read_text().replace('"abc"', '"abd"'))


def pickled(path: Path) -> None:
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)


@pytest.mark.parametrize("damage", [flip_a_byte, truncate, empty, foreign, other_key, pickled])
def test_damaged_files_are_removed_and_rebuilt(
    plain: dict[str, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str], damage
) -> None:
    ScoreStore(tmp_path).scores(KEY, IMAGES, Counting())
    (file,) = tmp_path.rglob("*log_p*.npy")
    damage(file)
    scorer = Counting()
    assert equal(ScoreStore(tmp_path).scores(KEY, IMAGES, scorer), plain)
    assert scorer.seen == len(IMAGES)
    captured = capsys.readouterr()
    assert str(file.parent) in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert equal(ScoreStore(tmp_path).scores(KEY, IMAGES, Counting(dies_at=0)), plain)


def test_a_damaged_chunk_alone_is_scored_again(
    plain: dict[str, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        ScoreStore(tmp_path).scores(KEY, IMAGES, Counting(dies_at=400))
    truncate(next(tmp_path.rglob("200-400-log_p*.npy")))
    scorer = Counting()
    assert equal(ScoreStore(tmp_path).scores(KEY, IMAGES, scorer), plain)
    assert scorer.seen == 330
    assert "200-400-log_p" in capsys.readouterr().err


def test_a_scorer_that_gives_nan_is_named_and_nothing_of_it_kept(tmp_path: Path) -> None:
    def diverged(images: np.ndarray) -> dict[str, np.ndarray]:
        scores = np.zeros(len(images))
        scores[3] = np.nan
        return {"log_p": scores}

    with pytest.raises(UserError, match=r"vaebm on svhn: log_p is NaN .* image 3"):
        ScoreStore(tmp_path).scores(KEY, IMAGES, diverged, label="vaebm on svhn")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [lambda x: {}, lambda x: {"a": np.zeros(3)}, lambda x: {"a": np.zeros((len(x), 1))}])
def test_a_scorer_that_breaks_its_contract(tmp_path: Path, wrong) -> None:
    with pytest.raises(UserError, match=r"no scores|shape"):
        ScoreStore(tmp_path).scores(KEY, IMAGES, wrong)


def test_a_reused_buffer_is_copied() -> None:
    buffer = np.empty(200)

    def reuses(images: np.ndarray) -> dict[str, np.ndarray]:
        buffer[: len(images)] = images.reshape(len(images), -1)[:, 0]
        return {"score": buffer[: len(images)]}

    found = ScoreStore(None).scores(KEY, IMAGES, reuses)["score"]
    np.testing.assert_array_equal(found, IMAGES.reshape(len(IMAGES), -1)[:, 0])


def test_bad_folder_names_the_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--cache"):
        ScoreStore(tmp_path / "file" / "cache")

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(UserError, match=r"Permission denied; choose a writable folder with --cache"):
        ScoreStore(tmp_path)
    monkeypatch.undo()
    store = ScoreStore(tmp_path)
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(UserError, match="--cache"):
        store.scores(KEY, IMAGES, Counting())
    assert not list(tmp_path.rglob("*.partial"))


def test_no_images_and_unusable_keys() -> None:
    with pytest.raises(UserError, match="no images"):
        ScoreStore(None).scores(KEY, IMAGES[:0], Counting())
    with pytest.raises(TypeError):
        ScoreStore(None).scores({"a": object()}, IMAGES, Counting())
    with pytest.raises(ValueError, match="JSON"):
        ScoreStore(None).scores({"a": float("nan")}, IMAGES, Counting())


def test_source_hash_follows_content(tmp_path: Path) -> None:
    a, b = tmp_path / "a.py", tmp_path / "b.py"
    a.write_text("x = 1")
    b.write_text("y = 2")
    first = source_hash([a, b])
    assert source_hash([b, a]) == first
    b.write_text("y = 3")
    assert source_hash([a, b]) != first
