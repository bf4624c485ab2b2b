"""A team's own Superset on a real API server: its module, secrets and sign-on in the pods that need them, and in no others."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import Any

import pytest

from components.own_superset import FOLDER, RELOADER
from tests.cluster.conftest import Rendered, Stacks
from tests.cluster.control_plane import ControlPlane
from tests.cluster.deployed import COMPONENT, settle, templates_by_component
from tests.components.stacks import config_of
from topology.commands import LDAP_CA_FILE, OWN_MODULE_ENV, SIGN_ON_SECRET_ENV
from topology.stack_file import folder

pytestmark = pytest.mark.cluster

EXAMPLES = folder().parent / "docs" / "examples"
#: Secrets of somebody else's.
KEPT_ELSEWHERE = {
    "acme-billing": {"token": "t0ken"},
    "ldap-account": {"password": "of-the-account"},
    "ldap-authority": {"ca.crt": "the authority"},
}
#: As the engine keeps a secret in a stack file.
ENCRYPTED = {"secure": "v1:nonce:text"}


@dataclass(frozen=True)
class Applied:
    cluster: ControlPlane
    rendered: Rendered

    @property
    def pods(self) -> dict[str, dict[str, Any]]:
        """The spec of one pod of each component, as the server has it."""
        found = self.cluster.get("pods", self.rendered.namespace)
        return {pod["metadata"]["labels"][COMPONENT]: pod["spec"] for pod in found}

    @property
    def superset(self) -> dict[str, dict[str, Any]]:
        """Those of Superset's processes."""
        return {
            name: spec for name, spec in self.pods.items() if name in ("web", "beat", "superset-init") or "worker" in name
        }

    def egress(self, component: str) -> list[tuple[str, int]]:
        """Networks and ports beyond the namespace that the policies of a component's pods open."""
        return [
            (peer["ipBlock"]["cidr"], port["port"])
            for policy in self.cluster.get("networkpolicies", self.rendered.namespace)
            if policy["spec"]["podSelector"].get("matchLabels", {}).get(COMPONENT) == component
            for rule in policy["spec"].get("egress", ())
            for peer in rule.get("to", ())
            if "ipBlock" in peer
            for port in rule.get("ports", ())
        ]


def applied(cluster: ControlPlane, stacks: Stacks, example: str) -> Applied:
    """An example of tests/components/stacks.py, with the module beside the stack files, and its Secrets in the namespace."""
    namespace = f"own-{example}"
    config = config_of(example)
    if "config_module" in config["superset"]:
        shutil.copytree(EXAMPLES / "acme", stacks.folder / "acme", dirs_exist_ok=True)
        config["superset"]["config_module"] = "../acme"
        config["superset_env"] = dict.fromkeys(config["superset_env"], ENCRYPTED)
        config["sign_on_secret"] = ENCRYPTED
    rendered = stacks.render(namespace, "minimal", config)
    cluster.apply(rendered.files[0])
    for name, values in KEPT_ELSEWHERE.items():
        literals = [f"--from-literal={key}={value}" for key, value in values.items()]
        cluster.kubectl("create", "secret", "generic", name, f"--namespace={namespace}", *literals)
    assert "Warning" not in (done := cluster.apply(*rendered.files)).stderr, done.stderr
    settle(cluster, namespace)
    return Applied(cluster, rendered)


def variables(spec: dict[str, Any]) -> dict[str, Any]:
    """The environment of a pod's first container: a value, or the Secret and its key."""
    found: dict[str, Any] = {}
    for each in spec["containers"][0].get("env", ()):
        reference = each.get("valueFrom", {}).get("secretKeyRef")
        found[each["name"]] = (reference["name"], reference["key"]) if reference else each.get("value")
    return found


def files(cluster: ControlPlane, namespace: str, spec: dict[str, Any], at: str) -> dict[str, str]:
    """What a pod finds in the folder `at`, by path: the items of the mounted ConfigMap or Secret."""
    (mount,) = (each for each in spec["containers"][0]["volumeMounts"] if each["mountPath"] == at)
    assert mount["readOnly"]
    (volume,) = (each for each in spec["volumes"] if each["name"] == mount["name"])
    kind, source = ("configmap", volume["configMap"]) if "configMap" in volume else ("secret", volume["secret"])
    data = cluster.object(kind, source.get("name") or source["secretName"], namespace)["data"]
    return {item["path"]: data[item["key"]] for item in source["items"]}


def test_the_module_and_its_secrets_are_in_every_superset_pod_and_a_changed_file_replaces_them(
    cluster: ControlPlane, stacks: Stacks
) -> None:
    found = applied(cluster, stacks, "own-superset")
    namespace = found.rendered.namespace
    superset = found.superset
    assert {"web", "beat", "superset-init", "worker-acme", "worker-default"} <= superset.keys()
    wanted = {f"acme/{path.name}": path.read_text() for path in (EXAMPLES / "acme").glob("*.py")}
    for name, spec in superset.items():
        known = variables(spec)
        assert files(cluster, namespace, spec, FOLDER) == wanted, name
        assert known[OWN_MODULE_ENV] == f"{FOLDER}/acme/__init__.py"
        assert known["SMTP_PASSWORD"] == ("superset-own", "SMTP_PASSWORD")
        assert known["ACME_BILLING_TOKEN"] == ("acme-billing", "token")
        # Nobody logs in anywhere else.
        assert (SIGN_ON_SECRET_ENV in known) == (name == "web"), name
    for name in found.pods.keys() - superset.keys():
        assert (
            not {OWN_MODULE_ENV, "SMTP_PASSWORD", "ACME_BILLING_TOKEN", SIGN_ON_SECRET_ENV}
            & variables(found.pods[name]).keys()
        )
    deployment = cluster.object("deployment", "web", namespace)
    assert deployment["metadata"]["annotations"][RELOADER] == "acme-billing"
    # The issuer is the web tier's to reach.
    assert ("10.30.0.0/24", 443) in found.egress("web")
    assert all(("10.30.0.0/24", 443) not in found.egress(name) for name in found.pods if name != "web")

    before = templates_by_component(cluster, namespace)
    file = stacks.folder / "acme" / "sql.py"
    file.write_text(file.read_text() + "\n# changed\n")
    config = config_of("own-superset")
    config["superset"]["config_module"] = "../acme"
    config |= {"superset_env": {"SMTP_PASSWORD": ENCRYPTED}, "sign_on_secret": ENCRYPTED}
    cluster.apply(*stacks.render(namespace, "minimal", config).files)
    settle(cluster, namespace)
    after = templates_by_component(cluster, namespace)
    assert {name for name in after if after[name] - before[name]} == superset.keys()


def test_the_directorys_authority_and_account_are_in_the_web_tier(cluster: ControlPlane, stacks: Stacks) -> None:
    found = applied(cluster, stacks, "ldap")
    web = found.superset["web"]
    assert variables(web)[SIGN_ON_SECRET_ENV] == ("ldap-account", "password")
    at, _, name = LDAP_CA_FILE.rpartition("/")
    assert name in files(cluster, found.rendered.namespace, web, at)
    assert all(SIGN_ON_SECRET_ENV not in variables(spec) for name, spec in found.superset.items() if name != "web")
    assert ("10.31.0.5/32", 636) in found.egress("web")
