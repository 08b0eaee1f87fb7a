"""Native checkpoints: round trips, half precision, one line for whatever is wrong with a file, nothing half-written."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save as to_safetensors
from tiny import TINY_ENERGY
from torch import Tensor, nn

from vaebm.checkpoints import load_checkpoint, load_weights, native, save_checkpoint
from vaebm.energy import EnergyNetwork
from vaebm.errors import UserError

CARD = {"kind": "toy", "size": "mini", "architecture": {"widths": [1, 2]}}


def weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {
        "a.kernel": torch.randn(3, 4),
        "a.bias": torch.randn(3) * 1e6,
        "b.count": torch.tensor(7),
        "ab.x": torch.randn(2),
    }


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, weights(), CARD)
    return path


def one_line(error: pytest.ExceptionInfo[UserError], *parts: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_round_trip_returns_the_same_weights_and_card(saved: Path) -> None:
    checkpoint = load_checkpoint(saved)
    assert checkpoint.kind == "toy"
    assert checkpoint.card.items() >= CARD.items()
    assert checkpoint.weights.keys() == weights().keys()
    for name, value in weights().items():
        assert torch.equal(checkpoint.weights[name], value), name
        assert checkpoint.weights[name].dtype == value.dtype
    assert sorted(p.name for p in saved.parent.iterdir()) == ["model.json", "model.safetensors"]


def test_part_strips_exactly_its_prefix(saved: Path) -> None:
    part = load_checkpoint(saved).part("a")
    assert sorted(part) == ["bias", "kernel"]


def test_half_rounds_matrices_to_float16_and_keeps_vectors_and_counts(tmp_path: Path) -> None:
    full, half = tmp_path / "full.safetensors", tmp_path / "half.safetensors"
    big = {**weights(), "big": torch.randn(64, 64)}
    save_checkpoint(full, big, CARD)
    save_checkpoint(half, big, CARD, half=True)
    assert half.stat().st_size < full.stat().st_size - 64 * 64
    read = load_checkpoint(half).weights
    assert torch.equal(read["big"], big["big"].half().float())
    assert not torch.equal(read["big"], big["big"])
    assert torch.equal(read["a.bias"], big["a.bias"])  # 1e6 leaves float16's range
    assert read["b.count"].dtype == torch.int64


def test_saving_what_was_read_in_half_precision_changes_nothing(tmp_path: Path) -> None:
    first, second = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    save_checkpoint(first, weights(), CARD, half=True)
    checkpoint = load_checkpoint(first)
    save_checkpoint(second, checkpoint.weights, checkpoint.card, half=True)
    assert first.read_bytes() == second.read_bytes()
    assert load_checkpoint(second).card == checkpoint.card


@given(cut=st.integers(1, 400))
def test_truncated_weights_are_refused(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("cut") / "model.safetensors"
    save_checkpoint(path, weights(), CARD)
    content = path.read_bytes()
    path.write_bytes(content[: max(0, len(content) - cut)])
    with pytest.raises(UserError) as error:
        load_checkpoint(path)
    one_line(error, str(path), "truncated")


def test_weights_of_another_save_are_refused(saved: Path) -> None:
    saved.write_bytes(to_safetensors({**weights(), "a.bias": torch.zeros(3)}))
    with pytest.raises(UserError) as error:
        load_checkpoint(saved)
    one_line(error, str(saved), "sha256", "model.json")


def test_a_file_that_is_no_safetensors_is_refused_even_with_a_matching_hash(saved: Path) -> None:
    import hashlib

    saved.write_bytes(b"not weights")
    card = saved.with_suffix(".json")
    card.write_text(json.dumps({**json.loads(card.read_text()), "sha256": hashlib.sha256(b"not weights").hexdigest()}))
    with pytest.raises(UserError) as error:
        load_checkpoint(saved)
    one_line(error, str(saved), "toy")


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_missing_half_of_the_pair_is_named(saved: Path, suffix: str) -> None:
    saved.with_suffix(suffix).unlink()
    with pytest.raises(UserError) as error:
        load_checkpoint(saved)
    one_line(error, str(saved.with_suffix(suffix)), "no such file")


@pytest.mark.parametrize(
    "content", [b"{", b"[1, 2]", b'"text"', b"3", b'{"format": 1}', b'{"kind": "toy"}', b"\xff\xfe\x00"]
)
def test_a_card_that_is_no_card_is_refused(saved: Path, content: bytes) -> None:
    saved.with_suffix(".json").write_bytes(content)
    with pytest.raises(UserError) as error:
        load_checkpoint(saved)
    one_line(error, "model.json", "card")


def test_card_of_another_format_is_refused_with_both_versions(saved: Path) -> None:
    card = saved.with_suffix(".json")
    card.write_text(json.dumps({**json.loads(card.read_text()), "format": 99}))
    with pytest.raises(UserError) as error:
        load_checkpoint(saved)
    one_line(error, "99", "reads 1")


def test_other_file_types_are_refused_by_what_was_needed(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        load_checkpoint(tmp_path / "EBM.pth")
    one_line(error, "EBM.pth", ".safetensors")


# Loading into a network


def test_load_weights_restores_the_network() -> None:
    torch.manual_seed(0)
    first, second = EnergyNetwork(TINY_ENERGY), EnergyNetwork(TINY_ENERGY)
    load_weights(second, first.state_dict(), "here")
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(first(x), second(x))


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda w: w.pop("weight"), ("--checkpoint", "'weight'", "missing")),
        (lambda w: w.update(weight=torch.zeros(3, 2)), ("'weight'", "(3, 2)", "(2, 3)")),
        (lambda w: w.update(extra=torch.zeros(1), more=torch.zeros(1)), ("'extra'", "2 unknown")),
    ],
)
def test_first_weight_that_differs_is_named_and_nothing_is_loaded(change, parts: tuple[str, ...]) -> None:
    module = nn.Linear(3, 2)
    given_weights = {name: torch.ones_like(value) for name, value in module.state_dict().items()}
    change(given_weights)
    before = module.bias.detach().clone()
    with pytest.raises(UserError) as error:
        load_weights(module, given_weights, "--checkpoint")
    one_line(error, *parts)
    assert torch.equal(module.bias, before)


# Interrupted saves


@pytest.mark.parametrize("fails_at", [1, 2])
def test_an_interrupted_save_leaves_the_older_pair_whole(
    saved: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    write, calls = Path.write_bytes, []

    def interrupted(path: Path, content: bytes) -> int:
        calls.append(path)
        if len(calls) == fails_at:
            write(path, content[: len(content) // 2])
            raise KeyboardInterrupt
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(saved, {"new": torch.zeros(5)}, CARD)
    monkeypatch.undo()
    assert load_checkpoint(saved).weights.keys() == weights().keys()
    assert sorted(p.name for p in saved.parent.iterdir()) == ["model.json", "model.safetensors"]


def test_a_card_that_json_cannot_hold_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        save_checkpoint(tmp_path / "x.safetensors", weights(), {"kind": "toy", "bad": object()})
    assert list(tmp_path.iterdir()) == []


def test_format_version_is_written_to_the_card(saved: Path) -> None:
    assert json.loads(saved.with_suffix(".json").read_text())["format"] == native.FORMAT
