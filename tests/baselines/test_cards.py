"""Cards: their form, what they claim of the classes here, of the published numbers, and of the page that describes them."""

import importlib
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest

import benchmark
from baselines import SYSTEMS
from baselines.cards import FOLDER, Card, card_names, check_card, read_card
from baselines.load import find_system, load_system
from baselines.official import LAYOUTS
from baselines.training import TASKS
from evaluators.protocols import Sampler, Scorer
from leaderboards.published import REFERENCES_BIB, read_published
from vaebm.errors import UserError

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "systems.md").read_text(encoding="utf-8")
SHIPPED = [name for name in SYSTEMS if name not in SYSTEMS.packages]
ALONE = (
    *("fdiv_ebm", "flowce", "flowebm", "gebm", "mdsm"),
    *("sngan", "sngan_ddls", "sngan_dcd", "biggan", "stylegan2_noada"),
)
# Rows of the paper that are one system here; Table 4 and Appendix C.2 are of another, smaller model.
SAME = {"vaebm_pc": "vaebm", "vaebm_no_pc": "vaebm"}
VARIANTS = ("ablation_ebm_x", "ablation_wgan_nvae_dec", "ablation_vaebm", "ablation_vaebm_kl")


def table_of(name: str) -> dict[str, Any]:
    return tomllib.loads((FOLDER / "cards" / f"{name}.toml").read_text(encoding="utf-8"))


def card_of(name: str) -> Card:
    card = read_card(name)
    assert card is not None
    return card


# --- their form ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", card_names())
def test_a_card_fits_the_schema(name: str) -> None:
    assert check_card(table_of(name)) == ""
    card = card_of(name)
    assert card.name == name
    assert set(card.checkpoints) == set(table_of(name).get("checkpoints", {}))
    for text in (card.recompute, card.recipe, *card.imports.values()):
        assert "  " not in text


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"titel": "GEBM"}, "'titel' was unexpected"),
        ({"family": "energy"}, "family: 'energy' is not one of"),
        ({"summary": ""}, "summary: "),
        ({"recipe": "two\nlines"}, "recipe: "),
        ({"training": "both"}, "training: "),
        ({"abilities": ["draw"]}, "abilities/0: 'draw' is not one of"),
        ({"abilities": ["score", "score"]}, "non-unique"),
        ({"imports": {}}, "imports: "),
        ({"imports": {"weights": "x"}}, "'weights' was unexpected"),
        ({"public": [{"what": "code", "where": "x", "format": "y"}]}, "'verified' is a required property"),
        ({"public": [{"what": "code", "where": "x", "format": "y", "verified": "yes"}]}, "public/0/verified: "),
        ({"citation": "two words"}, "citation: "),
        ({"checkpoints": {"cifar10": "x.pt"}}, "checkpoints"),
        ({"checkpoints": {"cifar10": "x.safetensors"}}, "'origin' is a dependency of 'checkpoints'"),
        ({"origin": "somewhere"}, "'checkpoints' is a dependency of 'origin'"),
        ({"reported": None}, "reported: None is not of type 'array'"),
    ],
)
def test_another_form_is_named(change: dict[str, Any], complaint: str) -> None:
    assert complaint in check_card(table_of("gebm") | change)


@pytest.mark.parametrize(
    "key", ["title", "family", "imports", "public", "recompute", "recipe", "reported", "abilities"]
)
def test_a_missing_entry_is_named(key: str) -> None:
    table = table_of("gebm")
    del table[key]
    assert f"'{key}' is a required property" in check_card(table)


# --- what they say of the classes here -----------------------------------------------------------------------------


def test_every_system_of_the_tables_has_a_card() -> None:
    of_tables = {SAME.get(row.system, row.system) for row in read_published()} - set(VARIANTS)
    assert of_tables <= set(card_names())
    assert set(SHIPPED) | set(ALONE) <= set(card_names())
    assert set(card_names()) <= set(SHIPPED) | of_tables | {"ncsn", "ncsnv2", "ddpm"}


@pytest.mark.parametrize("name", SHIPPED)
def test_abilities_are_those_of_the_class(name: str) -> None:
    """The list is printed without importing torch, so the card has to say it."""
    target = SYSTEMS.load(name)
    trained = name in (*TASKS, "nvae", "vaebm")  # those two by python -m vaebm
    published = name in ("nvae", "vaebm") or any(
        f'"{name}"' in Path(importlib.import_module(f"baselines.official.{layout}").__file__).read_text()
        for layout in LAYOUTS
    )
    does = {
        "score": issubclass(target, Scorer),
        "sample": issubclass(target, Sampler),
        "train": trained,
        "official": published,
    }
    assert card_of(name).abilities == tuple(ability for ability, there in does.items() if there)


@pytest.mark.parametrize("name", ALONE)
def test_a_system_without_a_class_has_no_abilities_and_no_weights(name: str) -> None:
    card = card_of(name)
    assert name not in SYSTEMS
    assert (card.abilities, card.checkpoints, card.licence) == ((), {}, "")
    with pytest.raises(UserError, match=f"{re.escape(card.title)}: no weights for cifar10 are bundled$"):
        card.path()


@pytest.mark.parametrize("name", card_names())
def test_commands_are_taken_by_the_front_door(name: str) -> None:
    card = card_of(name)
    assert list(card.commands) == list(card.imports)
    for kind, command in card.commands.items():
        python, door, *words = shlex.split(command)
        assert (python, door) == ("python", "benchmark.py")
        options = benchmark.parser().parse_args(words)
        assert options[kind] == [f"{name}={'FOLDER' if kind == 'samples' else 'FILE.npz'}"]
        assert options.systems == "none"


@pytest.mark.parametrize("name", ALONE)
def test_asking_for_one_without_a_class_says_what_it_is_and_how_it_comes_in(name: str) -> None:
    card = card_of(name)
    for ask in (find_system, load_system):
        with pytest.raises(UserError) as error:
            ask(name)
        text = str(error.value)
        assert "\n" not in text
        assert text.startswith(f"--systems {name}: {card.title} ({card.family}) has a card but no class here")
        for command in card.commands.values():
            assert command in text


def test_an_unknown_name_is_compared_with_cards_too() -> None:
    with pytest.raises(UserError, match=r"unknown system 'stylegan2'\. Did you mean 'stylegan2_noada'\?"):
        find_system("stylegan2")
    assert find_system("glow") == "baselines.glow:GlowSystem"
    assert read_card("../cards/glow") is None


@pytest.mark.parametrize("name", ["gebm", "nvae"])
def test_a_checkpoint_does_not_take_the_name_of_another_system(name: str) -> None:
    with pytest.raises(UserError, match=rf"--checkpoint {name}=.*holds a glow; name it glow or a label of your own"):
        load_system(name, card_of("glow").path())


# --- what they say of papers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", card_names())
def test_reported_is_where_published_numbers_stand(name: str) -> None:
    rows = [row for row in read_published() if SAME.get(row.system, row.system) == name]
    assert set(card_of(name).reported) == {row.protocol["table"] for row in rows}
    assert card_of(name).citation in {row.provenance["citation"] for row in rows} or not rows


@pytest.mark.parametrize("name", card_names())
def test_the_citation_is_in_the_bibliography(name: str) -> None:
    assert re.search(rf"^@\w+\{{{card_of(name).citation},", REFERENCES_BIB.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("name", card_names())
def test_no_result_stands_in_a_card(name: str) -> None:
    """Numbers of papers are in published.csv alone; what stands in a card are settings."""
    text = (FOLDER / "cards" / f"{name}.toml").read_text(encoding="utf-8")
    for row in read_published():
        if SAME.get(row.system, row.system) == name and row.value not in (12.0, 1000.0):
            assert not re.search(rf"(?<![\d.]){row.value:g}(?![\d.])", text), f"{row.metric} {row.value:g}"
    assert not re.search(r"\b(?:FID|IS|AUROC)(?: of| is)? \d", text)


# --- the page that describes them ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", card_names())
def test_the_page_says_where_everything_public_is_and_how_it_comes_in(name: str) -> None:
    (section,) = re.findall(rf"^\*\*[^*]+\*\* \(`{name}`\) (.*?)(?=^\*\*|^##|\Z)", PAGE, re.DOTALL | re.MULTILINE)
    card = card_of(name)
    for each in card.public:
        places = re.findall(r"[\w-]+(?:\.[\w-]+)*/[\w./-]*\w|\b[\w-]{28,}\b", each.where)
        assert places, each.where
        short = [re.sub(r"^(?:github\.com|huggingface\.co)/", "", place) for place in places]
        assert short[0] in section, each.where
    ways = [f"--{kind} {name}=" for kind in card.imports] + [f"--checkpoint {name}="] * ("official" in card.abilities)
    assert any(way in section for way in ways) or "A class here" in section


def test_the_page_describes_nothing_else() -> None:
    assert set(re.findall(r"^\*\*[^*]+\*\* \(`(\w+)`\)", PAGE, re.MULTILINE)) == set(card_names())


def commands_of_the_page() -> list[str]:
    found = re.findall(r"^    (python benchmark\.py .+)$", PAGE, re.MULTILINE)
    return [line.split("  #")[0].strip() for line in found]


@pytest.mark.parametrize("command", commands_of_the_page())
def test_the_commands_of_the_page_are_taken(command: str) -> None:
    options = benchmark.parser().parse_args(shlex.split(command)[2:])
    assert options.list or (options.suite and options.systems == "none")
    for given in (*options.samples, *options.scores):
        assert read_card(given.partition("=")[0]) is not None


def test_the_options_that_the_page_names_are_taken() -> None:
    given = re.findall(r"`(--(?:systems|samples|scores|checkpoint) [^`]+)`", PAGE)
    assert len(given) > 30
    for words in given:
        benchmark.parser().parse_args(shlex.split(words))
