"""What `render` writes, where, and what it leaves alone."""

from __future__ import annotations

import base64
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra import recording, render
from tests.components.stacks import OTHERS, SECRET_KEYS, config_of, recorded
from topology import stack_file
from topology.problems import StackError

pytestmark = pytest.mark.thorough

STACKS = tuple(stack for stack in stack_file.names() if stack != "local")


def documents(files: list[Path]) -> list[dict[str, Any]]:
    return [document for file in files for document in yaml.safe_load_all(file.read_text())]


def by_name(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {f"{each['kind']}/{each['metadata']['name']}": each for each in found}


@pytest.mark.parametrize("stack", STACKS)
def test_files_hold_what_the_program_registers_in_an_order_that_can_be_applied(stack: str, tmp_path: Path) -> None:
    files = render.render(stack, tmp_path)
    # Beside the manifests: what AWS is asked for, which nothing applies.
    of_aws = sorted(tmp_path.glob("aws/*.yaml"))
    assert bool(of_aws) is stack.startswith("aws-")
    assert set(files) == {*tmp_path.glob("*.yaml"), *of_aws}
    files = [file for file in files if file not in of_aws]
    assert files == sorted(files)
    found = documents(files)
    assert by_name(found) == by_name(recorded(stack).manifests())
    assert len({document["kind"] for document in found}) == len(files)
    kinds = [document["kind"] for document in found]
    assert kinds[0] == "Namespace"
    # What a pod refers to is applied before it.
    last = max(kinds.index(kind) for kind in ("Secret", "ConfigMap", "ServiceAccount", "NetworkPolicy"))
    assert last < min(kinds.index(kind) for kind in ("StatefulSet", "Job", "Deployment") if kind in kinds)


def test_a_second_render_changes_no_byte_and_does_not_depend_on_the_process(tmp_path: Path) -> None:
    first = {path.name: path.read_bytes() for path in render.render("enterprise", tmp_path / "one")}
    code = (
        f"from pathlib import Path; from infra.render import render; render('enterprise', Path({str(tmp_path / 'two')!r}))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert {path.name: path.read_bytes() for path in (tmp_path / "two").glob("*.yaml")} == first


def test_stacks_rendered_one_after_the_other_know_nothing_of_each_other(tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in render.render("minimal", tmp_path / "one")}
    render.render("multi-tenant", tmp_path / "other")
    assert {path.name: path.read_bytes() for path in render.render("minimal", tmp_path / "two")} == before


# The folder.


def leave_foreign_manifest(folder: Path) -> None:
    (folder / "extra.json").write_text("{}")


def forge_index(folder: Path) -> None:
    (folder / render.INDEX).write_text("../../outside.yaml\n")


def test_files_of_an_older_render_go_and_files_of_others_stay(tmp_path: Path) -> None:
    render.render("enterprise", tmp_path)
    (tmp_path / "notes.md").write_text("mine")
    old = {path.name for path in tmp_path.glob("*.yaml")}
    new = {path.name for path in render.render("minimal", tmp_path)}
    assert new < old
    assert {path.name for path in tmp_path.iterdir()} == {*new, "notes.md", render.INDEX}


@pytest.mark.parametrize("spoil", [leave_foreign_manifest, forge_index])
def test_what_it_did_not_write_is_never_applied_or_removed(spoil: Callable[[Path], None], tmp_path: Path) -> None:
    folder = tmp_path / "build"
    render.render("minimal", folder)
    spoil(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(StackError, match="output = "):
        render.render("minimal", folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_stack_with_mistakes_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="make up STACK=local"):
        render.render("local", tmp_path / "build")
    with pytest.raises(StackError, match="Did you mean 'minimal'"):
        render.render("minimel", tmp_path / "build")
    (tmp_path / "file").write_text("")
    with pytest.raises(StackError, match="is a file"):
        render.render("minimal", tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_interrupted_render_is_cleared_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Path.write_text

    def fail(path: Path, text: str, **options: Any) -> int:
        if path.name.startswith("04-"):
            raise OSError(28, "No space left on device")
        return whole(path, text, **options)

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(OSError, match="No space"):
        render.render("minimal", tmp_path)
    monkeypatch.undo()
    assert render.render("minimal", tmp_path) == sorted(tmp_path.glob("*.yaml"))


# Secrets.


def secrets_in(path: Path) -> dict[str, str]:
    return {
        f"{document['metadata']['name']}/{key}": value
        for document in yaml.safe_load_all(path.read_text())
        for key, value in document["stringData"].items()
    }


def test_without_a_file_for_them_secrets_are_placeholders(tmp_path: Path) -> None:
    render.render("enterprise", tmp_path)
    values = secrets_in(next(tmp_path.glob("*-secret.yaml")))
    assert len(values) >= 10
    assert all(recording.PLACEHOLDER in value for value in values.values())


def test_generated_values_go_to_a_private_file_of_their_own_and_stay(tmp_path: Path) -> None:
    folder, private = tmp_path / "build", tmp_path / "private" / "secrets.yaml"
    files = render.render("enterprise", folder, secrets_file=private)
    assert files[-1] == private
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    values = secrets_in(private)
    words = {value for name, value in values.items() if not name.endswith((".acl", ".crt", ".key"))}
    assert len(words) >= 8
    assert all(re.fullmatch(r"[A-Za-z0-9]{24,64}", value) for value in words)
    keys = {value for name, value in values.items() if name.endswith(".key")}
    assert len(keys) >= 2
    assert all(re.match("-----BEGIN [A-Z ]*PRIVATE KEY-----", value) for value in keys)
    generated = words | keys
    rendered = "".join(path.read_text() for path in files[:-1])
    assert not [value for value in generated if value in rendered or base64.b64encode(value.encode()).decode() in rendered]
    assert recording.PLACEHOLDER not in rendered
    assert "Secret" not in {document["kind"] for document in documents(files[:-1])}

    private.chmod(0o644)
    assert render.render("enterprise", folder, secrets_file=private) == files
    assert secrets_in(private) == values
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert rendered == "".join(path.read_text() for path in files[:-1])


def test_a_value_that_is_changed_in_the_file_rolls_what_uses_it(tmp_path: Path) -> None:
    folder, private = tmp_path / "build", tmp_path / "secrets.yaml"
    before = by_name(documents(render.render("minimal", folder, secrets_file=private)[:-1]))
    old = secrets_in(private)["superset-app/REDIS_CACHE_PASSWORD"]
    private.write_text(private.read_text().replace(old, "changed-by-hand"))
    after = by_name(documents(render.render("minimal", folder, secrets_file=private)[:-1]))
    assert ">changed-by-hand " in secrets_in(private)["redis-auth/users.acl"]
    changed = {name for name in before.keys() & after.keys() if before[name] != after[name]}
    deployments = {f"Deployment/{name}" for name in ("web", "worker-default", "beat", "exporter")}
    assert changed == {"StatefulSet/redis", *deployments}
    # The job's name carries the digest: it runs again.
    assert len(before.keys() - after.keys()) == len(after.keys() - before.keys()) == 1


def test_the_secrets_file_is_never_inside_the_folder_and_no_other_file_is_overwritten(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="must hold no secret"):
        render.render("minimal", tmp_path / "build", secrets_file=tmp_path / "build/secrets.yaml")
    other = tmp_path / "notes.yaml"
    other.write_text("mine: true\n")
    with pytest.raises(StackError, match="no file of Secrets"):
        render.render("minimal", tmp_path / "build", secrets_file=other)
    assert other.read_text() == "mine: true\n"
    assert not (tmp_path / "build").exists()


@pytest.fixture
def encrypted_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stack file with encrypted values, as `pulumi config set --secret --path` leaves them."""
    config: dict[str, Any] = {
        **config_of("existing"),
        "postgres_password": {"secure": "v1:abc:def"},
        "database_uris": {"warehouse": {"secure": "v1:ghi:jkl"}},
    }
    stacks = tmp_path / "stacks"
    stacks.mkdir()
    keyed = {f"superset-async:{key}": value for key, value in config.items()}
    (stacks / "Pulumi.prod.yaml").write_text(yaml.safe_dump({"config": keyed}))
    monkeypatch.setenv(stack_file.STACKS_ENV, str(stacks))
    return stacks / "Pulumi.prod.yaml"


def test_what_only_the_engine_can_read_is_a_placeholder_until_somebody_fills_it_in(
    encrypted_stack: Path, tmp_path: Path
) -> None:
    folder, private = tmp_path / "build", tmp_path / "secrets.yaml"
    render.render("prod", folder, secrets_file=private)
    values = secrets_in(private)
    assert values["superset-app/POSTGRES_PASSWORD"].startswith(recording.PLACEHOLDER)
    assert values["superset-init/DATABASE_URI_WAREHOUSE"].startswith(recording.PLACEHOLDER)
    filled = private.read_text().replace(values["superset-init/DATABASE_URI_WAREHOUSE"], "postgresql://u:p@db/w")
    private.write_text(filled)
    render.render("prod", folder, secrets_file=private)
    assert secrets_in(private) == values | {"superset-init/DATABASE_URI_WAREHOUSE": "postgresql://u:p@db/w"}


def test_a_setting_that_only_the_engine_can_read_is_refused(encrypted_stack: Path, tmp_path: Path) -> None:
    encrypted_stack.write_text(encrypted_stack.read_text() + "  superset-async:admin_username:\n    secure: v1:mno:pqr\n")
    with pytest.raises(StackError, match="admin_username"):
        render.render("prod", tmp_path / "build")


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stack=st.sampled_from(["minimal", "multi-tenant", *OTHERS]), seed=st.integers(0, 2**32))
def test_no_generated_value_is_ever_rendered(stack: str, seed: int) -> None:
    """Whatever is generated, no file but that of the Secrets contains it, in clear or in base64, or a part of it."""
    made: dict[str, str] = {}

    def generate(name: str, length: int) -> str:
        made[name] = f"{seed:010d}{name}".ljust(length, "x")
        return made[name]

    found = recording.record(stack, config_of(stack), secret_keys=SECRET_KEYS, generate=generate)
    files = render.manifest_files(stack, found.manifests())
    text = "".join(content for name, content in files.items() if "-secret" not in name)
    secrets = "".join(content for name, content in files.items() if "-secret" in name)
    assert made
    for name, value in made.items():
        assert value[:16] not in text
        assert base64.b64encode(value.encode()).decode()[:16] not in text
        # An authority signs where the program runs: its key goes to no cluster.
        assert (value in secrets) is not name.endswith("-ca-key")
