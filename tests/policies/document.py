"""`python -m tests.policies.document`: docs/policies.md, with what caught what, written from the rules and the mutations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from policies.evaluation import evaluate
from policies.rules import ALL, SUBJECTS
from tests.policies import mutations, planted

TARGET = Path(__file__).resolve().parents[2] / "docs/policies.md"

_HEADER = """# The policy pack: what must never be deployed

Written from `policies/` and `tests/policies/` by `make docs`; a test fails when it is not up to date.

The settings' check (`make render`, `pulumi preview`) refuses a stack file that breaks an invariant. The policy pack looks at what
the program really registers, whoever wrote it: a resource that was edited by hand, or that another program adds to the same
stack, is checked like our own. It knows no component of this project, only Kubernetes and AWS resources and what their pods
will read.

```sh
make policy STACK=enterprise                    # without the engine; exit code 1 where it must not be deployed
pulumi preview --policy-pack policies           # the same rules with the engine; `pulumi up` takes the same option
```

A **mandatory** rule stops the deployment, an **advisory** one is reported. Rules that look at one resource stop it before it is
made; the others look at the whole stack at its end, so run `pulumi preview` first, as `pulumi up` does by itself. What is not
known yet in a preview (an address that AWS will choose) is no violation; `pulumi up` looks again when it is known. A value that
a rule cannot read is a violation. The engine shows a policy no outputs of the stack: `secrets-in-outputs` is for `make policy`.

## Configuration

Rules with options take them from a JSON file, the same one for both ways: `make policy STACK=… POLICY_CONFIG=policy.json`,
`pulumi preview --policy-pack policies --policy-pack-config policy.json`.

```json
{{
  "redis-maxmemory": {{"percent": 60}},
  "network-public-service": {{"public": ["web"]}},
  "pods-token": "disabled"
}}
```

Rules marked **data** protect from the loss or leak of data: they have no options and no exceptions, and `make policy` refuses
another level for them. (The engine itself takes any level in such a file; review it like the stack file.)

## Exceptions

An exception stands in the stack file, with a reason, an owner and its last day; it excuses one resource from one rule.

```yaml
config:
  superset-async:policy_exceptions:
    - rule: network-public-service
      resource: Service/web
      reason: the load balancer of the old portal, until it moves behind the Gateway
      owner: team-bi
      expires: "2027-01-31"
```

`resource` is written as the report writes it, or as the kind and the program's own name. After its day the exception is a
violation itself, also where nothing is left to excuse: it asks for a new decision. So is one that names an unknown rule, or a
rule about data. One for a resource that does not exist is reported.

## Rules

{count} rules: {mandatory} mandatory, {advisory} advisory, {data} about data.

"""


def document() -> str:
    """The whole page."""
    counts = {
        "count": len(ALL),
        "mandatory": sum(rule.severity == "mandatory" for rule in ALL),
        "advisory": sum(rule.severity == "advisory" for rule in ALL),
        "data": sum(rule.loses_data for rule in ALL),
    }
    return _HEADER.format(**counts) + "\n".join([*_rules(), *_foreign(), *_caught()]) + "\n"


def _rules() -> Iterator[str]:
    for subject, rules in SUBJECTS.items():
        page = rules.rules[0].runbook.partition("#")[0].removeprefix("docs/")
        yield f"### {subject}\n\nRunbook: [{page}]({page})\n"
        yield "| rule | level | why | fix | options |\n|---|---|---|---|---|"
        for rule in rules.rules:
            level = f"{rule.severity}, **data**" if rule.loses_data else rule.severity
            options = "; ".join(
                f"`{name}`: {option.description} ({_default(option.default)})" for name, option in rule.options.items()
            )
            yield f"| [`{rule.id}`]({rule.runbook.removeprefix('docs/')}) | {level} | {rule.reason} | {rule.fix} | {options} |"
        yield ""


def _default(value: object) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def _foreign() -> Iterator[str]:
    yield (
        "## Other people's manifests\n\nThe same rules over what Superset's own Helm chart makes with the values that it ships, "
        "and over what the article's values\ndescribe, both written by hand from their texts (`tests/policies/foreign`).\n"
    )
    yield "| manifests | mandatory rules broken | advisory | which protect data |\n|---|---|---|---|"
    for name in planted.FOREIGN_NAMES:
        report = evaluate(planted.foreign(name))
        broken = {each.rule: each.severity for each in report.findings}
        data = [f"`{rule.id}`" for rule in ALL if rule.loses_data and rule.id in broken]
        levels = list(broken.values())
        yield (f"| `{name}.yaml` | {levels.count('mandatory')} | {levels.count('advisory')} | {', '.join(data)} |")
    yield ""


def _caught() -> Iterator[str]:
    rows: list[str] = []
    tried = dict.fromkeys(mutations.SHIPPED, 0)
    for mutation in mutations.all_mutations():
        cells: list[str] = []
        for stack in mutations.SHIPPED:
            caught = mutations.caught_by(stack, mutation)
            tried[stack] += caught is not None
            cells.append(_cell(caught, mutation.rule))
        shown = [cell if index == 0 or cell != cells[index - 1] else "·" for index, cell in enumerate(cells)]
        rows.append(f"| {mutation.what} | {' | '.join(shown)} |")
    numbers = ", ".join(f"{stack} {number}" for stack, number in tried.items())
    yield (
        f"## What caught what\n\nEach shipped stack broken in one way at a time ({numbers} ways), in its file\n"
        "(the first column is then a key of it) or by an edit of what it registers, and what noticed: the settings' check, or a\n"
        "rule. A `–` stands where the stack has nothing to break in that way, a `·` for the value of the column before it, and\n"
        "`+n` for other rules that noticed too.\n"
    )
    yield f"| broken | {' | '.join(mutations.SHIPPED)} |\n|---{'|---' * len(mutations.SHIPPED)}|"
    yield from rows


def _cell(caught: list[str] | None, expected: str) -> str:
    if caught is None:
        return "–"
    if not caught:
        return "**nothing**"
    first = expected if expected in caught else caught[0]
    more = f" +{len(caught) - 1}" if len(caught) > 1 else ""
    return first if first == "settings" else f"`{first}`{more}"


if __name__ == "__main__":
    TARGET.write_text(document(), encoding="utf-8")
