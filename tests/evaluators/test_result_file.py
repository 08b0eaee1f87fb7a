"""Result files: what was written is what is read, and nothing else is."""

import hashlib
import json
import platform
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evaluators import provenance
from evaluators.measurement import Measurement
from evaluators.provenance import commit, environment
from evaluators.result_file import SCHEMA, SCHEMA_VERSION, Results, checksum, find_results, read_results, write_results
from vaebm.errors import UserError

VERSION_1 = Path(__file__).with_name("results-version-1.json")
PAGE = Path(__file__).parents[2] / "docs" / "results.md"
SCHEMA_2 = json.loads(SCHEMA.read_text())
FIELDS = SCHEMA_2["properties"]
ROW_FIELDS = FIELDS["measurements"]["items"]["properties"]


def example(**about: Any) -> Results:
    rows = [
        Measurement("ood", "vaebm", "svhn", "auroc", 0.8593750000000001, 0.57, 0.97, 16, 0, protocol={"n_in": 8}),
        Measurement("ood", "vaebm", "celeba", "auroc", None, note="no data"),
        Measurement("ood", "naïve ± 1", "svhn", "fpr95", 12.0, role="control", provenance={"data": {"svhn": "ab12"}}),
    ]
    given: dict[str, Any] = {
        "created": "2026-11-21T17:00:00Z",
        "command": "python benchmark.py",
        "options": {"seed": 0},
    }
    return Results("ood", rows, **given | {"seconds": 1.5, "numerics": {"threads": 1, "torch": "2"}} | about)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ood.json"


@pytest.fixture
def written(path: Path) -> Path:
    write_results(example(), path)
    return path


def reading(path: Path, content: str | bytes) -> str:
    """What is said of a file with this content."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError) as refusal:
        read_results(path)
    said = str(refusal.value)
    assert said.startswith(f"{path}: "), said
    assert "\n" not in said
    assert len(said) < len(str(path)) + 400
    return said.removeprefix(f"{path}: ")


def signed(document: dict[str, Any]) -> str:
    """As another program may write it, with the checksum that fits."""
    return json.dumps({**document, "checksum": checksum(document)})


# --- there and back --------------------------------------------------------------------------------------------

numbers = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
json_objects = st.dictionaries(st.text(), json_values, max_size=3)


@st.composite
def measurements(draw: Any) -> Measurement:
    low, value, high = sorted(draw(st.lists(numbers, min_size=3, max_size=3)))
    empty = draw(st.booleans())
    return Measurement(
        draw(st.from_regex(r"[a-z][a-z0-9]*([_.-][A-Z0-9]+)?", fullmatch=True)),
        *(draw(st.text(min_size=1)) for _ in range(3)),
        **{"value": None} if empty else {"value": value, "low": low, "high": high},
        n=draw(st.none() | st.integers(0)),
        role=draw(st.sampled_from(["headline", "diagnostic", "control"])),
        protocol=draw(json_objects),
        provenance=draw(json_objects),
        note=draw(st.text(min_size=1)),
    )


@given(rows=st.lists(measurements(), max_size=3), options=json_objects, seconds=st.floats(0, 1e9))
def test_what_is_read_is_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Measurement], options: dict[str, Any], seconds: float
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    results = Results("ood", rows, options=options, seconds=seconds)
    write_results(results, path)
    assert read_results(path) == results


def test_file_fits_its_schema_and_says_what_the_run_was(written: Path) -> None:
    document = json.loads(written.read_text())
    jsonschema.validate(document, SCHEMA_2)
    jsonschema.Draft202012Validator.check_schema(SCHEMA_2)
    assert list(document)[:2] == ["schema_version", "checksum"]  # what a reader of the file looks for first
    assert document.keys() == set(SCHEMA_2["required"]) == set(FIELDS)
    assert document["schema_version"] == SCHEMA_VERSION == 2
    assert [row["value"] for row in document["measurements"]] == [0.8593750000000001, None, 12.0]
    assert set(ROW_FIELDS) == set(example().rows[0].to_json())


@pytest.mark.parametrize(
    ("rewritten", "encoding"),
    [
        ({"indent": 7}, "utf-8"),
        ({"separators": (",", ":")}, "utf-8"),
        ({"sort_keys": True, "ensure_ascii": False}, "utf-8"),
        ({}, "utf-8-sig"),
        ({}, "utf-16"),  # as some shells redirect
    ],
)
def test_layout_is_not_content(written: Path, rewritten: dict[str, Any], encoding: str) -> None:
    before = written.read_bytes()
    written.write_bytes(json.dumps(json.loads(before), **rewritten).encode(encoding))
    assert written.read_bytes() != before
    assert read_results(written) == example()


def test_tuples_are_read_as_lists(path: Path) -> None:
    write_results(example(options={"ladder": (1, 2)}), path)
    assert read_results(path).options == {"ladder": [1, 2]}


@pytest.mark.parametrize(
    ("results", "error"),
    [
        (example(seconds=-1.0), ValueError),
        (example(created="yesterday"), ValueError),
        (example(options={"x": float("nan")}), ValueError),
        (example(options={"x": {1, 2}}), TypeError),
        (replace(example(), rows=[Measurement("ood", "", "x", "auroc", 0.5)]), ValueError),
    ],
)
def test_what_does_not_fit_is_not_written(written: Path, results: Results, error: type[Exception]) -> None:
    before = written.read_bytes()
    with pytest.raises(error):
        write_results(results, written)
    assert written.read_bytes() == before
    assert list(written.parent.iterdir()) == [written]


# --- files that were cut off, edited or damaged ----------------------------------------------------------------


@pytest.mark.parametrize("layout", [{"indent": 1}, {"separators": (",", ":")}])
@pytest.mark.parametrize("version", [1, 2])
def test_every_beginning_of_a_file_is_refused_as_cut_off(written: Path, version: int, layout: dict[str, Any]) -> None:
    source = written if version == 2 else VERSION_1
    document = json.loads(source.read_text())
    document["measurements"] = document["measurements"][:2]
    whole = json.dumps(document, **layout)
    for end in range(len(whole)):
        said = reading(written, whole[:end])
        assert said.startswith("ends in the middle, at line " if end else "is empty"), (end, said)


def test_every_changed_digit_is_seen(written: Path) -> None:
    text = written.read_text()
    content, places = json.loads(text), [match.start() for match in re.finditer(r"\d", text)]
    assert len(places) > 80
    for place in places:
        for digit in {(int(text[place]) + by) % 10 for by in (1, 4, 7)}:
            edited = f"{text[:place]}{digit}{text[place + 1 :]}"
            try:
                same = json.loads(edited) == content  # the last of 17 digits may not matter
            except ValueError:
                same = False
            if not same:
                said = reading(written, edited)
                assert re.match(
                    "does not match its checksum|was written by a newer version|found schema version 0|line|"
                    "found '?[a-z]+'?, which files of version 1",
                    said,
                ), said


@given(st.data())
def test_any_damage_is_one_clear_line(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.json"
    write_results(example(), path)
    whole = path.read_bytes()
    start = data.draw(st.integers(0, len(whole) - 1))
    put = data.draw(
        st.binary(max_size=4) | st.sampled_from([b'"', b"}", b"]", b",", b"null", b"-", b"1e999", b"\\u00"])
    )
    damaged = whole[:start] + put + whole[start + data.draw(st.integers(0, 40)) :]
    try:
        same = json.loads(damaged) == json.loads(whole)
    except ValueError:
        same = False
    if same:
        path.write_bytes(damaged)
        assert read_results(path) == example()
    else:
        reading(path, damaged)


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_anything_else_is_one_clear_line(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    reading(tmp_path_factory.getbasetemp() / "else.json", content)


BAD: list[tuple[str, Callable[[str], str | bytes]]] = [
    ("is empty", lambda text: ""),
    ("is empty", lambda text: " \n"),
    ("found no text", lambda text: b"\x89PNG\r\n\x1a\n\xff\xd8"),
    ("found no text", lambda text: text.encode().replace(b"vaebm", b"va\xe9bm")),
    ("found no JSON", lambda text: "<!DOCTYPE html><title>404</title>"),
    ("found no JSON", lambda text: "suite,system\nood,vaebm\n"),
    ("found no JSON", lambda text: b"\0" * 512),
    ("found JSON of another kind", lambda text: "[]"),
    ("found JSON of another kind", lambda text: "3"),
    ("found JSON of another kind", lambda text: '{"a": 1}'),
    ("found JSON of another kind", lambda text: text.replace('"measurements"', '"rows"')),
    ("ends in the middle", lambda text: text[:-3]),
    ("was edited or damaged", lambda text: text.replace("12.0", "12,0")),
    ("was edited or damaged", lambda text: text.replace("12.0", "3.0")),
    ("was edited or damaged", lambda text: text.replace("no data", "no date")),
    ("was edited or damaged", lambda text: text.replace('"checksum"', '"check"')),
    ("was edited or damaged", lambda text: text.replace('"note": ""\n', '"note": "",\n')),
    ("was written by a newer version", lambda text: text.replace('"schema_version": 2', '"schema_version": 3')),
    ("was written by a newer version", lambda text: '{"schema_version": 10, "measurements": {}}'),
    ("found schema version", lambda text: text.replace('"schema_version": 2', '"schema_version": 0')),
    ("found schema version", lambda text: text.replace('"schema_version": 2', '"schema_version": true')),
    ("found schema version", lambda text: text.replace('"schema_version": 2', '"schema_version": "2"')),
    ("of version 1 do not have", lambda text: text.replace('"schema_version": 2', '"schema_version": 1')),
    ("twice in one object", lambda text: text.replace('"value"', '"value": 0.99,\n   "value"', 1)),
    ("twice in one object", lambda text: text.replace("{", '{"schema_version": 2,', 1)),
    ("for a number", lambda text: text.replace("12.0", "NaN")),
    ("for a number", lambda text: text.replace("12.0", "-Infinity")),
    ("for a number", lambda text: text.replace("12.0", "1e999")),
    ("it was edited", lambda text: text.replace("12.0", "1" * 5000)),
    ("nested too deep", lambda text: "[" * 100_000),
    ("nested too deep", lambda text: text.replace('"ab12"', "[" * 50_000 + "]" * 50_000)),
]


@pytest.mark.parametrize(("says", "damage"), BAD)
def test_bad_file_gets_its_answer(written: Path, says: str, damage: Callable[[str], str | bytes]) -> None:
    damaged = damage(written.read_text())
    assert damaged != written.read_text()
    assert says in reading(written, damaged)


def test_places_that_are_no_files(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none.json", tmp_path / "no" / "folder.json"):
        with pytest.raises(UserError, match="cannot be read"):
            read_results(place)


def _put(document: Any, *keys: str | int, value: Any) -> dict[str, Any]:
    inner = document
    for key in keys[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    return document


@pytest.mark.parametrize(
    ("keys", "value", "says"),
    [
        (
            ("measurements", 1, "value"),
            "0.5",
            "measurements[1].value: '0.5' is not of type 'number', 'null' (The number; ",
        ),
        (("measurements", 0, "value"), True, "measurements[0].value: True is not of type"),
        (("measurements", 0, "value"), ..., "measurements[0]: 'value' is a required property"),
        (
            ("measurements", 1, "note"),
            "",
            "measurements[1].note: '' should be non-empty (An empty value needs its reason",
        ),
        (("measurements", 1, "note"), ..., "measurements[1]: 'note' is a required property"),
        (("measurements", 0, "note"), None, "measurements[0].note: None is not of type 'string'"),
        (("measurements", 0, "low"), [0.5], "measurements[0].low: [0.5] is not of type"),
        (
            ("measurements", 0, "low"),
            0.98,
            "measurements[0]: vaebm/svhn/auroc: an interval must not end before it begins",
        ),
        (("measurements", 0, "n"), 1.5, "measurements[0].n: 1.5 is not of type"),
        (("measurements", 0, "n"), -1, "measurements[0].n: -1 is less than the minimum of 0"),
        *(
            (("measurements", 0, "suite"), name, f"measurements[0].suite: {name!r} does not match (Suite that made it")
            for name in (
                "../../evil",
                "/etc/evil",
                "a/b",
                "a\\b",
                "..",
                "a..b",
                ".hidden",
                "",
                "-o",
                "ood\n",
                "a,b",
                "ö",
            )
        ),
        *(
            (("suite",), name, f"suite: {name!r} does not match (The suite that was run")
            for name in ("../../evil", "ood,../evil", "ood,", ",ood", "a..b", "ood, modes", "ood\n", "\n")
        ),
        (("measurements", 0, "role"), "hero", "measurements[0].role: 'hero' is not one of"),
        (("measurements", 0, "origin"), "guessed", "measurements[0].origin: 'guessed' is not one of"),
        (("measurements", 0, "system"), "", "measurements[0].system: '' should be non-empty"),
        (("measurements", 0, "protocol"), "none", "measurements[0].protocol: 'none' is not of type 'object'"),
        (("measurements", 0, "colour"), "red", "measurements[0]: Additional properties are not allowed ('colour'"),
        (("measurements", 2), 7, "measurements[2]: 7 is not of type 'object'"),
        (("measurements",), {}, "measurements: {} is not of type 'array' (The rows)"),
        (("colour",), "red", "document: Additional properties are not allowed ('colour'"),
        (("options",), ..., "document: 'options' is a required property"),
        (("options",), [], "options: [] is not of type 'object' (Every option"),
        (("created",), "now", "created: 'now' does not match"),
        (("seconds",), -1, "seconds: -1 is less than the minimum of 0"),
        (("packages", "torch"), 2.5, "packages.torch: 2.5 is not of type 'string'"),
    ],
)
def test_wrong_field_is_named_by_its_place(written: Path, keys: tuple[str | int, ...], value: Any, says: str) -> None:
    said = reading(written, signed(_put(json.loads(written.read_text()), *keys, value=value)))
    assert said.startswith(says), said
    assert said.endswith("another program wrote it")


def test_whole_numbers_are_integers_however_another_program_wrote_them(written: Path) -> None:
    document = json.loads(written.read_text())
    document["measurements"][0] |= {"n": 4000.0, "seed": -0.0}
    written.write_text(signed(document))
    row = read_results(written).rows[0]
    assert (repr(row.n), repr(row.seed)) == ("4000", "0")
    assert repr(row.value) == "0.8593750000000001"


def test_long_findings_lose_their_middle(written: Path) -> None:
    said = reading(written, signed(_put(json.loads(written.read_text()), "measurements", value={"x": "y" * 5000})))
    assert " ... " in said
    assert "is not of type 'array'" in said


# --- versions --------------------------------------------------------------------------------------------------


def test_version_1_is_read_with_the_new_fields_empty(path: Path) -> None:
    document, results = json.loads(VERSION_1.read_text()), read_results(VERSION_1)
    assert document["schema_version"] == 1
    assert [row.to_json() for row in results.rows] == document["measurements"]
    assert (results.suite, results.created, results.options, results.numerics) == ("ood", "", {}, {})
    for name in ("command", "seconds", "packages", "python", "commit", "machine"):
        assert getattr(results, name) == document[name] != ""
    write_results(results, path)  # and is version 2 from now on
    assert json.loads(path.read_text())["schema_version"] == 2
    assert read_results(path) == results


def test_version_1_with_less_or_wrong_content(path: Path) -> None:
    document = json.loads(VERSION_1.read_text())
    for key in ("command", "commit", "packages"):
        path.write_text(json.dumps({name: value for name, value in document.items() if name != key}))
        assert not getattr(read_results(path), key)
    assert reading(path, json.dumps({**document, "measurements": 3})).startswith("measurements: 3 is not of type")
    assert reading(path, json.dumps({**document, "measurements": [3]})).startswith("measurements[0]: 3 is not of type")
    assert reading(path, json.dumps({**document, "seconds": "long"})).startswith("seconds: 'long' is not of type")
    joined = [{**document["measurements"][0], "suite": suite} for suite in ("ood", "modes", "ood")]
    path.write_text(json.dumps({**document, "measurements": joined}))
    assert read_results(path).suite == "ood,modes"


def test_version_1_names_no_other_folder_either(path: Path) -> None:
    document = json.loads(VERSION_1.read_text())
    evil = {**document, "measurements": [{**document["measurements"][0], "suite": "../../evil"}]}
    assert "suite: '../../evil' does not match" in reading(path, json.dumps(evil))


@pytest.mark.parametrize("suite", ["", "ood", "ood,generation,modes", "my_suite-2.1", "ood,my.own"])
def test_names_of_suites_that_are_fine(path: Path, suite: str) -> None:
    rows = [replace(example().rows[0], suite=name, n=0) for name in suite.split(",") if name]
    write_results(replace(example(), suite=suite, rows=rows), path)
    assert read_results(path) == replace(example(), suite=suite, rows=rows)
    with pytest.raises(ValueError, match="does not match"):
        write_results(replace(example(), suite=f"../{suite}"), path)


def test_what_cannot_be_written_is_named_as_the_user_knows_it(tmp_path: Path) -> None:
    (tmp_path / "ood.json").mkdir()
    with pytest.raises(UserError) as refusal:
        write_results(example(), tmp_path / "ood.json")
    needed = "cannot be written (it is a folder); choose another folder with --out"
    assert str(refusal.value) == f"{tmp_path / 'ood.json'}: {needed}"
    assert [place.name for place in tmp_path.iterdir()] == ["ood.json"]
    with pytest.raises(UserError, match=r"no/ood\.json: cannot be written \(No such file or directory\); .*--out"):
        write_results(example(), tmp_path / "no" / "ood.json")


# --- finding them ----------------------------------------------------------------------------------------------


def test_folder_gives_its_result_files_by_name(tmp_path: Path) -> None:
    for name in ("b.json", "a.json"):
        write_results(example(), tmp_path / name)
    (tmp_path / "a_tables.json").write_text('{"tables": []}')
    (tmp_path / "check.json").write_text("[1, 2]")
    (tmp_path / "deep.json").mkdir()
    (tmp_path / "a.json.partial").write_text("{")
    (tmp_path / "old.json").write_text(VERSION_1.read_text())
    assert find_results([tmp_path]) == [tmp_path / name for name in ("a.json", "b.json", "old.json")]


@pytest.mark.parametrize("content", [b"", b'{\n "schema_ver', b'{"a": 1', b"\xff\xfe", b"[" * 100_000])
def test_json_that_is_not_whole_is_found_to_be_refused(written: Path, content: bytes) -> None:
    (written.parent / "cut.json").write_bytes(content)
    found = find_results([written.parent])
    assert found == [written.parent / "cut.json", written]
    with pytest.raises(UserError, match="cut"):
        read_results(found[0])


def test_file_is_found_once_by_whatever_name(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = written.parent / "link.json"
    link.symlink_to(written)
    monkeypatch.chdir(written.parent)
    (written.parent / "in").mkdir()
    assert find_results([written, written.parent, Path("ood.json"), Path("in/../ood.json"), link]) == [written]


def test_link_to_itself_is_for_the_reader_to_refuse(written: Path) -> None:
    loop, other = written.parent / "loop.json", written.parent / "other.json"
    loop.symlink_to(other)
    other.symlink_to(loop)
    assert find_results([written.parent]) == [written]
    assert find_results([written, loop]) == [written, loop]
    with pytest.raises(UserError, match=r"loop\.json: cannot be read \("):
        read_results(loop)


def test_place_without_results_is_refused(tmp_path: Path) -> None:
    (tmp_path / "else.json").write_text("{}")
    with pytest.raises(UserError, match="found no result file in this folder"):
        find_results([tmp_path])
    assert find_results([tmp_path / "none.json"]) == [tmp_path / "none.json"]  # which is for the reader to say
    assert find_results([]) == []


# --- rows ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"value": float("nan")}, "must be finite, found nan"),
        ({"value": float("inf")}, "must be finite, found inf"),
        ({"value": 0.5, "low": float("nan")}, "must be finite, found nan"),
        ({"value": 0.5, "high": float("-inf")}, "must be finite, found -inf"),
        ({"value": None}, "must say why in `note`"),
        ({"value": 0.5, "low": 0.6, "high": 0.4}, "must not end before it begins, found 0.6 to 0.4"),
    ],
)
def test_measurement_refuses_what_is_no_number(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says) as error:
        Measurement("ood", "vaebm", "svhn", "auroc", **fields)
    assert str(error.value).startswith("vaebm/svhn/auroc: ")


# --- provenance ------------------------------------------------------------------------------------------------


def test_environment_fits_and_names_no_machine(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = environment(Path(__file__).parent)
    write_results(example(**found), path)
    assert read_results(path).numerics == found["numerics"]
    assert found["numerics"]["torch"] == torch.__version__
    assert found["packages"]["numpy"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", found["created"])
    text = json.dumps(found)
    assert platform.node() == "" or platform.node() not in text
    assert str(Path.home()) == "/" or str(Path.home()) not in text


def test_numerics_are_those_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert provenance.numerics()["threads"] == 3
    finally:
        torch.set_num_threads(before)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert provenance.numerics()["NVIDIA_TF32_OVERRIDE"] == "0"
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE")
    assert "NVIDIA_TF32_OVERRIDE" not in provenance.numerics()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: "Abacus 9")
    assert provenance.numerics()["gpu"] == "Abacus 9"


def test_commit_of_a_checkout(tmp_path: Path) -> None:
    git = lambda *words: subprocess.run(
        ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words],
        check=True,
        capture_output=True,
    )
    assert commit(tmp_path) == ""
    git("init")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "a")
    clean = commit(tmp_path)
    assert re.fullmatch("[0-9a-f]{40}", clean)
    (tmp_path / "a").write_text("2")
    assert commit(tmp_path) == clean + "-dirty"


# --- the page --------------------------------------------------------------------------------------------------


def _field_table(properties: dict[str, Any], required: list[str]) -> str:
    def kind(field: dict[str, Any]) -> str:
        if "const" in field:
            return str(field["const"])
        if "enum" in field:
            return ", ".join(field["enum"])
        return field["type"] if isinstance(field["type"], str) else " or ".join(field["type"])

    lines = [f"| `{name}` | {kind(field)} | {field['description']} |" for name, field in properties.items()]
    assert set(required) <= set(properties)
    return "\n".join(["| field | type | meaning |", "|---|---|---|", *lines])


def test_page_has_every_field_in_the_words_of_the_schema() -> None:
    page = PAGE.read_text()
    for properties, required in (
        (FIELDS, SCHEMA_2["required"]),
        (ROW_FIELDS, FIELDS["measurements"]["items"]["required"]),
    ):
        table = _field_table(properties, required)
        assert f"\n\n{table}\n\n" in page, f"docs/results.md needs\n{table}"
    assert FIELDS["measurements"]["items"]["required"] == list(ROW_FIELDS)[:5]  # "Only the first five are needed"


def _python_of_the_page() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_recipe_of_the_page_makes_the_checksum(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (recipe,) = [code for code in _python_of_the_page() if "hashlib" in code]
    monkeypatch.chdir(written.parent)
    document = json.loads(written.read_text())
    document["measurements"][1]["note"] = "corrected by hand"
    Path("mine.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match="checksum"):
        read_results(Path("mine.json"))
    exec(recipe, {})
    assert read_results(Path("mine.json")).rows[1].note == "corrected by hand"
    compact = json.dumps(
        {key: document[key] for key in sorted(document) if key != "checksum"}, sort_keys=True, separators=(",", ":")
    )
    assert json.loads(Path("mine.json").read_text())["checksum"] == hashlib.sha256(compact.encode()).hexdigest()


def test_reading_of_the_page_works(
    written: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = [code for code in _python_of_the_page() if "read_results" in code]
    (written.parent / "results").mkdir()
    written.rename(written.parent / "results" / "ood.json")
    monkeypatch.chdir(written.parent)
    exec(code, {})
    assert capsys.readouterr().out.splitlines()[0] == "vaebm svhn auroc 0.8593750000000001 0.57 0.97"


def test_page_explains_every_answer() -> None:
    section = PAGE.read_text().split("## What a refusal means")[1].split("\n## ")[0]
    explained = set(re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE))
    given = {says for says, _ in BAD} - {"it was edited"} | {"cannot be read", "measurements[3].value: ..."}
    assert explained == given
