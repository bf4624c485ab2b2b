"""Documents name files that exist."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
#: Not CHANGELOG.md, which names what was.
DOCUMENTS = sorted(
    path.relative_to(PROJECT).as_posix()
    for pattern in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/*.md", "docs/decisions/*.md", "docs/runbooks/*.md")
    for path in PROJECT.glob(pattern)
)
ROOMS = "bench|client|components|docs|infra|local|ops|policies|requirements|runtime|stacks|tests|tools|topology"
#: A path in a code span or a code block; a `*` or `<name>` stands for some file.
PATH = re.compile(rf"(?<![\w./-])(?:{ROOMS})/[\w./-]*+(?![*<…])")
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_that_a_document_names_exist(document: str) -> None:
    text = (PROJECT / document).read_text(encoding="utf-8")
    code = " ".join(re.findall(r"```.*?```|`[^`]+`", text, re.DOTALL))
    missing = {name for name in PATH.findall(code) if not (PROJECT / name.rstrip(".")).exists()}
    linked = {name for name in LINK.findall(text) if not (PROJECT / document).parent.joinpath(name).exists()}
    assert missing | linked == set()


def test_the_threat_model_names_tests_that_exist() -> None:
    """Each test that it names is in one of the files that its line names."""
    for line in (PROJECT / "docs/threat-model.md").read_text(encoding="utf-8").splitlines():
        files = re.findall(r"`(tests/[\w/]+\.py)`", line)
        texts = "".join((PROJECT / name).read_text(encoding="utf-8") for name in files)
        for test in re.findall(r"`(test_\w+)`", line):
            assert f"def {test}(" in texts, test


def test_every_decision_record_has_a_number_of_its_own_a_date_and_a_line_in_the_index() -> None:
    folder = PROJECT / "docs/decisions"
    names = sorted(path.name for path in folder.glob("[0-9]*.md"))
    assert len({name[:4] for name in names}) == len(names) > 9
    index = (folder / "README.md").read_text(encoding="utf-8")
    for name in names:
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
        assert lines[0].startswith("# ") and any(line.startswith("Date: 20") for line in lines[:4]), name
        assert f"]({name})" in index


def test_every_target_of_make_is_in_its_help() -> None:
    shown = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=PROJECT, check=True, capture_output=True, text=True
    ).stdout.split("\n")
    phony = re.search(r"^\.PHONY: (.*)$", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert phony
    assert {line.split()[0] for line in shown if line} == set(phony[1].split())
