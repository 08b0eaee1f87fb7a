"""The workflow that docs/examples offers is one that GitHub and the front door would take."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

import benchmark
from leaderboards.cli import OUT
from leaderboards.gate.files import _kept_scores
from vaebm.cli import parse

ROOT = Path(benchmark.__file__).parent
WORKFLOW = ROOT / "docs" / "examples" / "github-actions.yml"


@pytest.fixture(scope="module")
def workflow() -> dict[Any, Any]:
    return yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))


def steps(workflow: dict[Any, Any], job: str) -> list[dict[str, Any]]:
    return workflow["jobs"][job]["steps"]


def options(workflow: dict[Any, Any], job: str) -> Any:
    """What the front door makes of the job's one call of it."""
    (line,) = [
        line for step in steps(workflow, job) for line in step.get("run", "").splitlines() if "benchmark.py" in line
    ]
    python, script, *words = shlex.split(line)
    assert (python, script) == ("python", "benchmark.py")
    return parse(benchmark.parser(), words)


def test_it_says_where_github_looks_for_workflows_that_a_person_starts() -> None:
    top = WORKFLOW.read_text(encoding="utf-8").split("\nname:")[0]
    assert "(workflow_dispatch) only if its file is on the default branch" in top.replace("\n#", "")


def test_pull_requests_are_checked_and_a_person_updates_the_baseline(workflow: dict[Any, Any]) -> None:
    assert set(workflow[True]) == {"pull_request", "workflow_dispatch"}  # YAML reads "on" as true
    assert workflow["jobs"].keys() == {"gate", "update-baseline"}
    assert workflow["jobs"]["gate"]["if"] == "github.event_name == 'pull_request'"
    assert workflow["jobs"]["update-baseline"]["if"] == "github.event_name == 'workflow_dispatch'"
    # Only the job that a person starts may write.
    assert workflow["permissions"] == {"contents": "read"}
    assert "permissions" not in workflow["jobs"]["gate"]
    assert workflow["jobs"]["update-baseline"]["permissions"] == {"contents": "write"}


def test_commands_parse_and_differ_in_nothing_but_the_update(workflow: dict[Any, Any]) -> None:
    gate, update = (options(workflow, job).as_dict() for job in ("gate", "update-baseline"))
    assert gate["check"] == Path("baseline.json")
    assert gate["suite"] == "ood"
    assert (gate.pop("update_baseline"), update.pop("update_baseline")) == (False, True)
    assert gate == update  # or the baseline would be incomparable


def test_what_is_stored_is_committed_and_what_is_found_is_shown(workflow: dict[Any, Any]) -> None:
    given = options(workflow, "gate")
    commands = "\n".join(step.get("run", "") for step in steps(workflow, "update-baseline"))
    assert f"git add --force {given.check} {_kept_scores(given.check)}" in commands
    last = {
        step.get("uses", "summary").split("@")[0]: step
        for step in steps(workflow, "gate")
        if step.get("if") == "always()"
    }
    assert last.keys() == {"summary", "actions/upload-artifact"}
    assert f'cat {given.out or OUT}/check.md >> "$GITHUB_STEP_SUMMARY"' in last["summary"]["run"]
    assert last["actions/upload-artifact"]["with"]["path"] == f"{given.out or OUT}/"


@pytest.mark.parametrize("job", ["gate", "update-baseline"])
def test_the_cache_is_the_one_that_the_program_uses(workflow: dict[Any, Any], job: str) -> None:
    (cache,) = (
        step["with"]["path"] for step in steps(workflow, job) if step.get("uses", "").startswith("actions/cache@")
    )
    assert workflow["env"]["VAEBM_CACHE"] == f"${{{{ github.workspace }}}}/{cache}"
    assert not options(workflow, job).cache


@pytest.mark.parametrize("job", ["gate", "update-baseline"])
def test_every_action_has_a_version(workflow: dict[Any, Any], job: str) -> None:
    used = [step["uses"] for step in steps(workflow, job) if "uses" in step]
    assert used
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@v\d+", name) for name in used)
