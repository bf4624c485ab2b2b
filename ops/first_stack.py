"""`superset-async init`: writes a first stack file by asking, and explains each choice; each answer can be an option instead."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console

from topology import presets, schema, stack_file
from topology.plan import plan
from topology.problems import Problem, StackError

out = Console()

#: To be replaced: nothing is guessed about an account.
ACCOUNT, REGION = "123456789012", "eu-central-1"
EXAMPLES = {"oidc": "https://login.example.com/realms/acme", "ldap": "ldaps://ldap.example.com"}
KEDA = "https://github.com/kedacore/keda/releases/download/v2.20.0/keda-2.20.0.yaml"
TOPOLOGIES = {
    "minimal": "one Redis, one web pod, one or two workers: to try it, or a small team",
    "enterprise": "Redis with failover, workers that scale on what is queued: one organisation",
    "high-throughput": "as enterprise, for many short queries",
    "multi-tenant": "as enterprise, with queues, limits and budgets for each tenant",
}
PLATFORMS = {
    "local": "processes of this machine (make up): nothing else is needed",
    "kubernetes": "a cluster that you have; pulumi up, or kubectl apply of what make render writes",
    "aws": "EKS, ElastiCache and RDS in an account of yours",
}
DATABASES = {
    "sample": "a generated database with a dashboard, on this machine alone",
    "secret": "one database whose URI, password included, is a secret of the stack",
    "none": "register databases later, in Superset or in this file",
}
SIGN_ONS = {
    "passwords": "users that Superset keeps; an administrator makes them",
    "oidc": "an identity provider, such as Keycloak, Okta, Entra ID or Google",
    "ldap": "a directory, over TLS",
}


@dataclass(frozen=True)
class Answers:
    """What was chosen."""

    topology: str
    platform: str
    database: str
    database_name: str
    sign_on: str
    issuer: str
    client_id: str
    namespace: str
    #: On a cluster, the network of the database, and of the provider or directory: a NetworkPolicy knows no host names.
    database_network: str = ""
    database_port: int = 5432
    sign_on_network: str = ""


def config(answers: Answers) -> dict[str, Any]:
    """The keys of the stack file."""
    keys: dict[str, Any] = {"topology": answers.topology, "platform": answers.platform}
    if answers.platform != "local":
        keys |= {"environment": "prod", "namespace": answers.namespace}
    if answers.platform == "kubernetes":
        keys |= {"redis": {"tls": {"kind": "generated"}}, "postgres": {"tls": {"kind": "generated"}}}
    if answers.platform == "aws":
        zones = [f"{REGION}{zone}" for zone in "abc"]
        registry = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
        keys["images"] = {"superset": f"{registry}/{presets.settings_of('minimal')['images']['superset']}"}
        keys["aws"] = {
            "account": ACCOUNT,
            "region": REGION,
            "network": {"zones": zones},
            "cluster": {"administrators": [f"arn:aws:iam::{ACCOUNT}:role/platform"], "keda_manifest": KEDA},
        }
    if answers.database == "sample":
        keys["databases"] = {"examples": {"sample": True}}
    elif answers.database == "secret":
        peer = {"cidrs": [answers.database_network], "ports": [answers.database_port]} if answers.database_network else {}
        keys["databases"] = {answers.database_name: peer}
    if answers.topology == "multi-tenant":
        keys["tenants"] = {"first": {"roles": ["First tenant"]}}
    networks = {"cidrs": [answers.sign_on_network]} if answers.sign_on_network else {}
    if answers.sign_on == "oidc":
        provider = {"issuer": answers.issuer, "client_id": answers.client_id}
        keys["superset"] = {"sign_on": {"oidc": provider, "roles": {"superset-admins": ["Admin"]}, **networks}}
    elif answers.sign_on == "ldap":
        directory = {
            "server": answers.issuer,
            "search": "ou=people,dc=example,dc=com",
            "bind_user": "cn=superset,dc=example,dc=com",
        }
        roles = {"cn=superset-admins,dc=example,dc=com": ["Admin"]}
        keys["superset"] = {"sign_on": {"ldap": directory, "roles": roles, **networks}}
    return keys


def document(answers: Answers) -> str:
    """The file's text, each choice explained above it."""
    said = {
        "topology": TOPOLOGIES[answers.topology],
        "platform": PLATFORMS[answers.platform],
        "environment": "which rules the policy pack applies",
        "namespace": "made by the stack, and for it alone",
        "redis": "an authority and certificates that the stack keeps; others: superset-async explain redis.tls",
        "postgres": "the same for the metadata database",
        "images": "in the stack's own repository: make image, then push it there",
        "aws": "the account's number, the region, then everything in docs/aws.md",
        "databases": DATABASES[answers.database],
        "tenants": "recognised by a role; other ways: superset-async explain tenants",
        "superset": "how users log in; secrets are set by pulumi config, never here",
    }
    lines = [schema.LINE, "# Every other key has the value of its preset: superset-async explain KEY", "config:"]
    for key, value in config(answers).items():
        text = yaml.safe_dump({f"{stack_file.PROJECT_NAME}:{key}": value}, sort_keys=False, allow_unicode=True)
        lines += [f"  # {said[key]}", *(f"  {line}" for line in text.splitlines())]
    return "\n".join(lines) + "\n"


def next_steps(stack: str, answers: Answers) -> list[str]:
    """What to do with the file."""
    variable = f"DATABASE_URI_{answers.database_name.upper().replace('-', '_')}"
    local = answers.platform == "local"
    steps: list[str] = []
    if answers.database == "secret":
        key = f"superset-async:database_uris.{answers.database_name}"
        steps.append(f"export {variable}='postgresql://…'" if local else f"pulumi config set --secret --path {key} '…'")
    if answers.sign_on != "passwords":
        steps.append(
            "export SIGN_ON_SECRET='…'" if local else "pulumi config set --secret superset-async:sign_on_secret '…'"
        )
    steps.append(f"make up STACK={stack}" if local else f"superset-async render --stack {stack}    # or pulumi up")
    return steps


def init(  # noqa: PLR0917 - each is an option of the command
    stack: Annotated[str, typer.Argument(help="name of the stack: the file is stacks/Pulumi.STACK.yaml")],
    topology: Annotated[str | None, typer.Option(help=f"one of {', '.join(TOPOLOGIES)}")] = None,
    platform: Annotated[str | None, typer.Option(help=f"one of {', '.join(PLATFORMS)}")] = None,
    database: Annotated[str | None, typer.Option(help=f"one of {', '.join(DATABASES)}")] = None,
    database_name: Annotated[str, typer.Option(help="its name, where it is a secret")] = "warehouse",
    sign_on: Annotated[str | None, typer.Option(help=f"one of {', '.join(SIGN_ONS)}")] = None,
    issuer: Annotated[str | None, typer.Option(help="URL of the identity provider's issuer, or of the directory")] = None,
    client_id: Annotated[str, typer.Option(help="id of the client at the identity provider")] = "superset",
    namespace: Annotated[str, typer.Option(help="namespace on the cluster")] = "superset",
    database_network: Annotated[
        str | None, typer.Option(help="on a cluster: the database's network, as 10.20.0.0/16")
    ] = None,
    database_port: Annotated[int, typer.Option(help="on a cluster: the database's port")] = 5432,
    sign_on_network: Annotated[
        str | None, typer.Option(help="on a cluster: the provider's or directory's network; 0.0.0.0/0 is the Internet")
    ] = None,
) -> None:
    """Write a first stack file by asking; an option answers its question beforehand. A file that exists is never overwritten."""
    path = stack_file.folder() / f"Pulumi.{stack}.yaml"
    if path.exists():
        raise StackError(
            stack, [Problem("stack", stack, f"has a file already: {path}", "Change it, or choose another name")]
        )
    chosen_topology = _choose("topology", topology, TOPOLOGIES, "minimal")
    chosen_platform = _choose("platform", platform, PLATFORMS, "local")
    databases = (
        DATABASES if chosen_platform == "local" else {key: text for key, text in DATABASES.items() if key != "sample"}
    )
    chosen_database = _choose("database", database, databases, next(iter(databases)))
    chosen_sign_on = _choose("sign_on", sign_on, SIGN_ONS, "passwords")
    url = issuer or ""
    if chosen_sign_on != "passwords" and not url:
        url = _ask("issuer", f"its URL, such as {EXAMPLES[chosen_sign_on]}")
    on_a_cluster = chosen_platform != "local"
    if on_a_cluster and chosen_database == "secret" and not database_network:
        database_network = _ask("database_network", "whom pods may reach, as 10.20.0.0/16")
    if on_a_cluster and chosen_sign_on != "passwords" and not sign_on_network:
        sign_on_network = _ask("sign_on_network", "whom the web tier may reach; 0.0.0.0/0 is the Internet", "0.0.0.0/0")
    answers = Answers(
        chosen_topology,
        chosen_platform,
        chosen_database,
        database_name,
        chosen_sign_on,
        url,
        client_id,
        namespace,
        database_network or "" if on_a_cluster else "",
        database_port,
        sign_on_network or "" if on_a_cluster else "",
    )
    plan(stack, config(answers))
    write(path, document(answers))
    out.print(f"wrote {path}", highlight=False, soft_wrap=True)
    lines = ["next:", *(f"  {step}" for step in next_steps(stack, answers))]
    out.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def write(path: Path, text: str) -> None:
    """Write a stack file, and nothing over one that exists."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
    # What its first line names, for editors.
    if not (beside := path.with_name(schema.FILE)).exists():
        beside.write_text(schema.document(), encoding="utf-8")


def _choose(name: str, given: str | None, choices: dict[str, str], default: str) -> str:
    """The answer that was given, or asked for; StackError for one that is no choice."""
    if given is None:
        out.print(f"\n{name}:", highlight=False)
        for choice, text in choices.items():
            out.print(f"  {choice:<16}{text}", highlight=False, markup=False, soft_wrap=True)
        given = _ask(name, "", default)
    if given not in choices:
        rule = f"must be one of {', '.join(choices)}"
        raise StackError("new", [Problem(name, given, rule, "Choose one of them")])
    return given


def _ask(name: str, hint: str, default: str | None = None) -> str:
    if not sys.stdin.isatty() and default is None:
        problem = Problem(name, "missing", "must be given where nobody can be asked", f"Add --{name.replace('_', '-')}")
        raise StackError("new", [problem])
    return str(typer.prompt(f"{name} ({hint})" if hint else name, default=default)).strip()
