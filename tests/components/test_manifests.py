"""What must hold for every object of every stack; and each rule is seen to find a mistake that is planted for it."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, cast

import kubernetes_validate.utils
import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from components import redis
from components.own_superset import kept_elsewhere
from tests.components.stacks import STACKS, recorded, topology_of
from topology.model import Peer, ServerTls, Topology

Manifest = dict[str, Any]
Objects = list[Manifest]
CUSTOM = {
    "cert-manager.io/v1",
    "keda.sh/v1alpha1",
    "postgresql.cnpg.io/v1",
    "gateway.networking.k8s.io/v1",
    "monitoring.coreos.com/v1",
}


@cache
def definitions(version: str) -> Any:
    """All of an API server's types, with unknown fields refused: Registry of referencing."""
    read = cast("Callable[[str, str], Any]", kubernetes_validate.utils.schema_contents)
    contents = read(f"kubernetes-json-schema/v{version}-local-strict/_definitions.json", version)
    return (Resource.from_contents(contents) @ Registry[Any]()).crawl()


@cache
def schema(api_version: str, kind: str, version: str) -> Draft202012Validator:
    """What an API server of `version` takes as an object of `kind`."""
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    read = cast("Callable[[str, str], Any]", kubernetes_validate.utils.schema_contents)
    contents = read(f"kubernetes-json-schema/v{version}-local-strict/{kind.lower()}-{group}.json", version)
    return Draft202012Validator(contents, registry=definitions(version))


def name_of(manifest: Manifest) -> str:
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def pods(objects: Objects) -> Iterator[tuple[str, Manifest, Manifest]]:
    """Name, pod template and controller of everything that makes pods."""
    for manifest in objects:
        spec = manifest.get("spec", {})
        if manifest["kind"] == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        if "template" in spec:
            yield name_of(manifest), spec["template"], manifest


def containers(objects: Objects) -> Iterator[tuple[str, Manifest, Manifest]]:
    """Name, container and pod spec of every container, those of initialization included."""
    for owner, template, _ in pods(objects):
        for container in [*template["spec"].get("initContainers", []), *template["spec"]["containers"]]:
            yield f"{owner}/{container['name']}", container, template["spec"]


def chosen(objects: Objects, kind: str, name: str) -> Manifest:
    return next(each for each in objects if name_of(each) == f"{kind}/{name}")


def matches(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector.items())


# The rules. Each yields what breaks it.


def objects_are_valid(objects: Objects, topology: Topology) -> Iterator[str]:
    for manifest in objects:
        if manifest["apiVersion"] not in CUSTOM:
            # The oldest that docs/installation.md names, the last of before, and the newest.
            for version in ("1.28.0", "1.34.0", "1.37.0"):
                for error in schema(manifest["apiVersion"], manifest["kind"], version).iter_errors(manifest):
                    yield f"{name_of(manifest)} in {version}: {error.message}"


def objects_say_where_and_whose_they_are(objects: Objects, topology: Topology) -> Iterator[str]:
    for manifest in objects:
        metadata = manifest["metadata"]
        if manifest["kind"] not in ("Namespace", "PriorityClass") and metadata.get("namespace") != topology.namespace:
            yield f"{name_of(manifest)} is in namespace {metadata.get('namespace')}"
        wanted = {**topology.labels, "app.kubernetes.io/instance": topology.stack}
        if not matches(wanted, metadata.get("labels", {})):
            yield f"{name_of(manifest)} lacks labels"
    names = [name_of(manifest) for manifest in objects]
    yield from (f"{name} exists twice" for name in set(names) if names.count(name) > 1)


def containers_ask_for_resources(objects: Objects, topology: Topology) -> Iterator[str]:
    for where, container, _ in containers(objects):
        resources = container.get("resources", {})
        for kind in ("requests", "limits"):
            if set(resources.get(kind, {})) != {"cpu", "memory"}:
                yield f"{where} has {kind} {resources.get(kind)}"


def pods_are_restricted(objects: Objects, topology: Topology) -> Iterator[str]:
    for where, template, _ in pods(objects):
        spec = template["spec"]
        security = spec.get("securityContext", {})
        if not security.get("runAsNonRoot") or not security.get("runAsUser"):
            yield f"{where} may run as root"
        if security.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{where} has no seccomp profile"
        if spec.get("automountServiceAccountToken") is not False:
            yield f"{where} mounts a token of the API server"
        if any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")) or any(
            "hostPath" in volume for volume in spec.get("volumes", [])
        ):
            yield f"{where} uses the host"
    for where, container, _ in containers(objects):
        security = container.get("securityContext", {})
        if (
            security.get("allowPrivilegeEscalation") is not False
            or security.get("capabilities") != {"drop": ["ALL"]}
            or security.get("readOnlyRootFilesystem") is not True
            or security.get("privileged")
        ):
            yield f"{where} has too many rights: {security}"


def references_lead_somewhere(objects: Objects, topology: Topology) -> Iterator[str]:
    keys = {
        name_of(manifest): {*manifest.get("data", {}), *manifest.get("stringData", {})}
        for manifest in objects
        if manifest["kind"] in ("ConfigMap", "Secret")
    }
    # Secrets that somebody else keeps have the keys that docs/configuration.md asks for.
    for tls in (*(instance.tls for instance in topology.redis), topology.postgres.tls):
        made = tls is not None and tls.certificate is not None and tls.certificate.kind == "generated"
        if tls and tls.secret_name and (not made or topology.postgres.kind == "cloudnativepg"):
            keys[f"Secret/{tls.secret_name}"] = {"ca.crt", *(("tls.crt", "tls.key") if tls.certificate else ())}
    for instance in topology.redis:
        if instance.existing and instance.existing.password_secret_name:
            keys[f"Secret/{instance.existing.password_secret_name}"] = {"password"}
    for secret, key in kept_elsewhere(topology.superset).values():
        keys[f"Secret/{secret}"] = {key}
    sign_on = topology.superset.sign_on
    if sign_on and sign_on.ldap and sign_on.ldap.ca_secret_name:
        keys[f"Secret/{sign_on.ldap.ca_secret_name}"] = {"ca.crt"}
    for where, template, manifest in pods(objects):
        spec = template["spec"]
        if f"ServiceAccount/{spec.get('serviceAccountName')}" not in {name_of(each) for each in objects}:
            yield f"{where} has no service account"
        volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
        volumes |= {claim["metadata"]["name"]: claim for claim in manifest["spec"].get("volumeClaimTemplates", [])}
        for volume in volumes.values():
            if "configMap" in volume and f"ConfigMap/{volume['configMap']['name']}" not in keys:
                yield f"{where} mounts ConfigMap {volume['configMap']['name']}"
            for item in volume.get("secret", {}).get("items", []):
                if item["key"] not in keys.get(f"Secret/{volume['secret']['secretName']}", set()):
                    yield f"{where} mounts key {item['key']} of a Secret that lacks it"
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            for mount in container.get("volumeMounts", []):
                if mount["name"] not in volumes:
                    yield f"{where}/{container['name']} mounts {mount['name']}, which is no volume"
            for variable in container.get("env", []):
                secret = variable.get("valueFrom", {}).get("secretKeyRef")
                if secret and secret["key"] not in keys.get(f"Secret/{secret['name']}", set()):
                    yield f"{where}/{container['name']} takes {secret['key']} of Secret {secret['name']}"
            ports = {port["name"] for port in container.get("ports", [])}
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                port = container.get(probe, {}).get("httpGet", {}).get("port")
                if port is not None and port not in ports:
                    yield f"{where}/{container['name']} probes {port}, which is no port"


def selectors_pick_pods(objects: Objects, topology: Topology) -> Iterator[str]:
    labels = {where: template["metadata"]["labels"] for where, template, _ in pods(objects)}
    for where, template, manifest in pods(objects):
        selector = manifest["spec"].get("selector", {}).get("matchLabels")
        if selector is not None and not matches(selector, template["metadata"]["labels"]):
            yield f"{where} does not select its own pods"
        if selector is not None and sum(matches(selector, each) for each in labels.values()) != 1:
            yield f"{where} selects pods of others"
        if selector is not None and set(selector) & set(topology.labels):
            yield f"{where} selects by labels that the stack file may change"
    for manifest in objects:
        match manifest["kind"]:
            case "Service":
                selector = manifest["spec"]["selector"]
            case "PodDisruptionBudget":
                selector = manifest["spec"]["selector"]["matchLabels"]
            case "NetworkPolicy":
                selector = manifest["spec"]["podSelector"].get("matchLabels", {})
            case _:
                continue
        plain = {key: value for key, value in selector.items() if key != "apps.kubernetes.io/pod-index"}
        if "cnpg.io/cluster" not in plain and not any(matches(plain, each) for each in labels.values()):
            yield f"{name_of(manifest)} picks no pod"


def scaled_deployments_say_no_replicas(objects: Objects, topology: Topology) -> Iterator[str]:
    targets = [
        manifest["spec"]["scaleTargetRef"]["name"]
        for manifest in objects
        if manifest["kind"] in ("HorizontalPodAutoscaler", "ScaledObject")
    ]
    yield from (f"Deployment/{name} has several scalers" for name in set(targets) if targets.count(name) > 1)
    for manifest in objects:
        if manifest["kind"] == "Deployment":
            scaled = manifest["metadata"]["name"] in targets
            if scaled == ("replicas" in manifest["spec"]):
                yield f"{name_of(manifest)} says {manifest['spec'].get('replicas')} replicas, scaled: {scaled}"


def what_can_be_several_survives_a_drain(objects: Objects, topology: Topology) -> Iterator[str]:
    budgets = [
        manifest["spec"]["selector"]["matchLabels"] for manifest in objects if manifest["kind"] == "PodDisruptionBudget"
    ]
    several = {"web": topology.web.max_replicas} | {f"worker-{pool.name}": pool.max_workers for pool in topology.pools}
    several |= {instance.name: instance.replicas + 1 for instance in topology.redis if not instance.existing}
    for where, template, _ in pods(objects):
        many = several.get(where.rpartition("/")[2], 1) > 1
        if many != any(matches(budget, template["metadata"]["labels"]) for budget in budgets) and "sentinel" not in where:
            yield f"{where}: budget for one pod, or none for several"
        if many and not template["spec"].get("topologySpreadConstraints"):
            yield f"{where} is not spread over nodes"


def workers_listen_and_end_as_their_pool_says(objects: Objects, topology: Topology) -> Iterator[str]:
    for pool in topology.pools:
        deployment = chosen(objects, "Deployment", f"worker-{pool.name}")
        pod = deployment["spec"]["template"]["spec"]
        command = pod["containers"][0]["command"]
        if command[0] != "celery":
            yield f"worker-{pool.name} starts {command[0]}, which gets SIGTERM instead of Celery"
        if f"--queues={','.join(pool.queues)}" not in command or f"--concurrency={pool.concurrency}" not in command:
            yield f"worker-{pool.name} runs {command}"
        if pod["terminationGracePeriodSeconds"] < topology.celery.soft_time_limit_seconds + 30:
            yield f"worker-{pool.name} is killed in mid-query"
        hung = pod["containers"][0]["livenessProbe"].get("terminationGracePeriodSeconds")
        if hung is None or hung > 60:
            yield f"worker-{pool.name} holds its messages for long when it hangs"


def scalers_read_the_broker(objects: Objects, topology: Topology) -> Iterator[str]:
    database = topology.database("broker")
    instance = topology.instance(database.instance)
    for manifest in objects:
        if manifest["kind"] != "ScaledObject":
            continue
        spec = manifest["spec"]
        pool = topology.pool(spec["scaleTargetRef"]["name"].removeprefix("worker-"))
        lists = [trigger for trigger in spec["triggers"] if trigger["type"].startswith("redis")]
        others = [trigger for trigger in spec["triggers"] if trigger["type"] == "metrics-api"]
        shared = len(topology.pools) > 1
        formula = [*(trigger["name"] for trigger in lists), *(f"({trigger['name']} ?? 0)" for trigger in others)]
        if spec["advanced"]["scalingModifiers"]["formula"].split(" + ") != formula:
            yield f"{name_of(manifest)}: the formula is not over its triggers"
        if ("unacked" in [trigger["metadata"]["listName"] for trigger in lists]) == shared:
            yield f"{name_of(manifest)}: counts what is in flight in other pools, or nothing"
        asked = [f'celery_queue_in_flight{{queue_name="{queue}"}}' for queue in pool.queues if shared]
        if [trigger["metadata"]["valueLocation"] for trigger in others] != asked:
            yield f"{name_of(manifest)}: does not ask for what is in flight in its queues"
        url = f"http://{topology.exporter.host}.{topology.namespace}.svc:{topology.exporter.port}/metrics"
        if any(trigger["metadata"]["url"] != url for trigger in others):
            yield f"{name_of(manifest)}: asks an exporter that is elsewhere"
        if [trigger["metadata"]["listName"] for trigger in lists[: len(pool.queues)]] != list(pool.queues):
            yield f"{name_of(manifest)}: lists are not the queues of the pool"
        host = redis.sentinel_name(instance) if instance.sentinel else instance.host
        begin = f"{host}:{instance.port}" if instance.existing else f"{host}."
        for trigger in lists:
            address = trigger["metadata"].get("addresses" if instance.sentinel else "address", "")
            if trigger["metadata"]["databaseIndex"] != str(database.number) or not address.startswith(begin):
                yield f"{name_of(manifest)}: reads {trigger['metadata']}, and the broker is elsewhere"
            users = {key: value for key, value in trigger["metadata"].items() if "sername" in key}
            name = topology.redis_users()["reader"].username
            if users != dict.fromkeys(("username", *(["sentinelUsername"] if instance.sentinel else [])), name):
                yield f"{name_of(manifest)}: asks as {users}"
            if "password" in str(trigger["metadata"]).lower():
                yield f"{name_of(manifest)}: a password in the trigger"
            if (trigger["metadata"].get("enableTLS") == "true") != (instance.tls is not None):
                yield f"{name_of(manifest)}: asks over TLS, or not, and the broker does not answer so"
            secrets = chosen(objects, "TriggerAuthentication", trigger["authenticationRef"]["name"])["spec"][
                "secretTargetRef"
            ]
            authority = [secret["name"] for secret in secrets if secret["parameter"] == "ca"]
            if authority != ([instance.tls.secret_name] if instance.tls and instance.tls.secret_name else []):
                yield f"{name_of(manifest)}: trusts {authority}"


def superset_waits_for_its_metadata(objects: Objects, topology: Topology) -> Iterator[str]:
    for where, template, manifest in pods(objects):
        if template["metadata"]["labels"]["app.kubernetes.io/name"] != "superset":
            continue
        waits = [each["command"] for each in template["spec"].get("initContainers", [])]
        # The job that prepares it must not wait for itself.
        if waits != ([] if manifest["kind"] == "Job" else [["python", "-m", "runtime.start.ready"]]):
            yield f"{where} first runs {waits}"


def a_tenants_pods_are_told_apart(objects: Objects, topology: Topology) -> Iterator[str]:
    classes = {each["metadata"]["name"]: each for each in objects if each["kind"] == "PriorityClass"}
    of_tenants = {f"worker-{pool.name}": pool for pool in topology.pools if pool.tenant}
    used: list[str] = []
    for where, template, manifest in pods(objects):
        pool = of_tenants.get(manifest["metadata"]["name"])
        label = template["metadata"]["labels"].get("superset-async/tenant")
        if label != (pool.tenant if pool else None) or label != manifest["metadata"]["labels"].get("superset-async/tenant"):
            yield f"{where} is labelled as tenant {label}"
        class_name = template["spec"].get("priorityClassName")
        if pool is None:
            # Without a class a pod has 0, which is above every tenant's.
            if class_name is not None:
                yield f"{where} has priority class {class_name}"
            continue
        used.append(str(class_name))
        if class_name not in classes or topology.namespace not in str(class_name):
            yield f"{where} has priority class {class_name}"
        elif not -10 <= classes[str(class_name)]["value"] < 0:
            yield f"{where} may push out the platform's pods, or nodes are not added for it"
        quotas = [each for each in objects if each["kind"] == "ResourceQuota" and str(class_name) in str(each["spec"])]
        if len(quotas) != (1 if pool.quota else 0):
            yield f"{where} has {len(quotas)} quotas"
        own = [each for each in objects if each["metadata"].get("labels", {}).get("superset-async/tenant") == pool.tenant]
        kinds = {"Deployment", "ServiceAccount", "PriorityClass", "PodDisruptionBudget"}
        kinds |= {"ScaledObject"} if pool.scaling else set[str]()
        if not kinds <= {each["kind"] for each in own}:
            yield f"{where}: some of its objects are not labelled"
    if len(set(used)) != len(used) or set(used) != set(classes):
        yield f"priority classes {sorted(classes)} for {used}"


def what_keeps_nothing_leaves_a_lost_node(objects: Objects, topology: Topology) -> Iterator[str]:
    """Beat, web, workers and the exporter are back in a minute or two; servers wait for their volume anyway."""
    for owner, template, controller in pods(objects):
        seconds = {
            each["key"]: each["tolerationSeconds"]
            for each in template["spec"].get("tolerations", [])
            if (each["operator"], each["effect"]) == ("Exists", "NoExecute")
        }
        taints = {"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"}
        if controller["kind"] == "Deployment" and (seconds.keys() != taints or max(seconds.values()) > 15):
            yield f"{owner} stays on a lost node: {seconds}"
        if controller["kind"] == "StatefulSet" and seconds:
            yield f"{owner} leaves its volume: {seconds}"


def volumes_are_of_the_stacks_class(objects: Objects, topology: Topology) -> Iterator[str]:
    for manifest in objects:
        claims = (
            [manifest]
            if manifest["kind"] == "PersistentVolumeClaim"
            else manifest.get("spec", {}).get("volumeClaimTemplates", [])
        )
        for claim in claims:
            if claim["spec"].get("storageClassName") != topology.storage_class:
                yield f"{name_of(manifest)} is of the class {claim['spec'].get('storageClassName')}"
        if manifest["kind"] == "Cluster" and manifest["spec"]["storage"].get("storageClass") != topology.storage_class:
            yield f"{name_of(manifest)} is of another class"


def one_beat_at_most(objects: Objects, topology: Topology) -> Iterator[str]:
    beats = [manifest for _, _, manifest in pods(objects) if " beat " in f" {_command(manifest)} "]
    if len(beats) != 1:
        yield f"{len(beats)} beats"
    for beat in beats:
        if beat["spec"].get("replicas") != 1 or beat["spec"]["strategy"] != {"type": "Recreate"}:
            yield "two beats at once are possible"


def _command(manifest: Manifest) -> str:
    spec = manifest["spec"].get("template", {}).get("spec", {})
    return " ".join(" ".join(container["command"]) for container in spec.get("containers", []))


def a_broker_evicts_no_task(objects: Objects, topology: Topology) -> Iterator[str]:
    for instance in topology.redis:
        if instance.existing:
            continue
        config = chosen(objects, "ConfigMap", f"{instance.name}-config")["data"]["redis.conf"].splitlines()
        if instance.carries_broker and any(line.startswith("maxmemory-policy allkeys") for line in config):
            yield f"{instance.name} evicts tasks"
        if instance.carries_broker and "save 900 1 300 100" not in config:
            yield f"{instance.name} forgets tasks at a restart"


def redis_is_reached_as_it_listens(objects: Objects, topology: Topology) -> Iterator[str]:
    """Over TLS alone where there is a certificate; and every client has the authority at the path that it reads."""
    for instance in topology.redis:
        if not instance.existing:
            config = chosen(objects, "ConfigMap", f"{instance.name}-config")["data"]["redis.conf"].splitlines()
            if (f"port {instance.port}" in config) == (instance.tls is not None):
                yield f"{instance.name} listens without TLS, or with it where nobody asked for it"
        yield from authority_is_where_clients_look(objects, instance.tls, {user.password_env for user in instance.users})


def postgres_is_reached_as_it_listens(objects: Objects, topology: Topology) -> Iterator[str]:
    """The same of the metadata database: its server takes nothing but TLS, and every client, the backup's too, verifies it."""
    server = topology.postgres
    if server.kind == "statefulset":
        rules = chosen(objects, "ConfigMap", "postgres-config")["data"]["pg_hba.conf"]
        pod = chosen(objects, "StatefulSet", "postgres")["spec"]["template"]["spec"]
        speaks = "ssl=on" in pod["containers"][0]["command"]
        if (speaks, "hostssl all" in rules, "host all" in rules) != (bool(server.tls), bool(server.tls), not server.tls):
            yield "postgres lets clients in without TLS, or has TLS where nobody asked for it"
        shown = [volume["secret"] for volume in pod["volumes"] if volume["name"] == "tls"]
        wanted = [(server.tls.secret_name, 0o440)] if server.tls else []
        if [(each["secretName"], each["defaultMode"]) for each in shown] != wanted:
            yield f"postgres has its certificate from {shown}"
    if server.kind == "cloudnativepg":
        spec = chosen(objects, "Cluster", "postgres")["spec"]
        if (spec["postgresql"].get("pg_hba") == ["hostnossl all all all reject"]) != bool(server.tls):
            yield "the cluster's servers let clients in without TLS, or TLS alone where nobody asked for it"
        if server.tls and server.host not in spec["certificates"].get("serverAltDNSNames", [server.host]):
            yield "the cluster's certificate has not the name that clients use"
    yield from authority_is_where_clients_look(objects, server.tls, {server.password_env})
    for name in ("postgres-backup", "postgres-backup-restore") if server.backup and server.tls else ():
        pod = chosen(objects, "CronJob", name)["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        variables = {each["name"]: each.get("value") for each in pod["containers"][0]["env"]}
        said = variables.get("PGSSLMODE"), variables.get("PGSSLROOTCERT")
        if said != ("verify-full", server.tls.ca_file if server.tls else None):
            yield f"{name} connects with {said}"
        found = authorities(pod, pod["containers"][0], str(said[1]))
        if server.tls is None or found != [server.tls.secret_name]:
            yield f"{name} reads {said[1]}, which comes from {found}"


def certificates_are_of_the_names_that_clients_use(objects: Objects, topology: Topology) -> Iterator[str]:
    """Those of cert-manager: the Secret that is mounted, and every name of the server's Service."""
    servers = [*(each for each in topology.redis if not each.existing), topology.postgres]
    for server in servers:
        if not server.tls or not server.tls.certificate or server.tls.certificate.kind != "cert-manager":
            continue
        spec = chosen(objects, "Certificate", f"{server.host}-tls")["spec"]
        if spec["secretName"] != server.tls.secret_name or not {server.host, f"{server.host}.superset.svc"} <= {
            *spec["dnsNames"]
        }:
            yield f"{server.host} shows a certificate of {spec['dnsNames']} in {spec['secretName']}"


def authorities(pod: Manifest, container: Manifest, file: str) -> list[str]:
    """The Secrets from which a container has `file`."""
    secrets = {volume["name"]: volume["secret"] for volume in pod["volumes"] if "secret" in volume}
    return [
        secrets[mount["name"]]["secretName"]
        for mount in container["volumeMounts"]
        if mount["name"] in secrets
        for item in secrets[mount["name"]]["items"]
        if f"{mount['mountPath']}/{item['path']}" == file
    ]


def authority_is_where_clients_look(objects: Objects, tls: ServerTls | None, passwords: set[str]) -> Iterator[str]:
    """Every container with one of these passwords, but the server's own, has the authority at the path that it reads."""
    ca_file = tls.ca_file if tls else None
    if tls is None or ca_file is None:
        return
    for where, container, pod in containers(objects):
        if passwords & {variable["name"] for variable in container.get("env", [])}:
            found = authorities(pod, container, ca_file)
            if found != [tls.secret_name]:
                yield f"{where} reads {ca_file}, which comes from {found}"


def every_flow_has_a_policy(objects: Objects, topology: Topology) -> Iterator[str]:
    policies = [manifest["spec"] for manifest in objects if manifest["kind"] == "NetworkPolicy"]
    if not any(
        policy["podSelector"] == {} and sorted(policy["policyTypes"]) == ["Egress", "Ingress"] for policy in policies
    ):
        yield "no default deny"
    for policy in policies:
        for rule in policy.get("ingress", []):
            if not rule.get("from") or any(
                not (peer.get("podSelector") or peer.get("namespaceSelector")) for peer in rule["from"]
            ):
                yield f"{policy['podSelector']} is open to everybody"
    servers = {instance.name: instance.port for instance in topology.redis if not instance.existing}
    if topology.postgres.kind == "statefulset":
        servers[topology.postgres.host] = topology.postgres.port
    labels = {where.rpartition("/")[2]: template["metadata"]["labels"] for where, template, _ in pods(objects)}
    clients = {name: found for name, found in labels.items() if found["app.kubernetes.io/name"] == "superset"}
    for client, client_labels in clients.items():
        for server, port in servers.items():
            if not _allowed(policies, "egress", "to", client_labels, labels[server], port):
                yield f"{client} may not connect to {server}"
            if not _allowed(policies, "ingress", "from", labels[server], client_labels, port):
                yield f"{server} does not let {client} in"


def let_out(peer: Peer) -> dict[str, Any]:
    """The rule that lets pods reach a peer whose networks have nothing closed in them."""
    namespace = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": peer.namespace}}}
    to = [namespace] if peer.namespace else [{"ipBlock": {"cidr": cidr}} for cidr in peer.cidrs]
    return {"ports": [{"port": port, "protocol": "TCP"} for port in peer.ports], "to": to}


def existing_servers_are_let_out_to(objects: Objects, topology: Topology) -> Iterator[str]:
    """Superset's pods, and the exporter where it is the broker, reach the server's port in its networks and no other."""
    policies = {
        manifest["metadata"]["name"]: manifest["spec"] for manifest in objects if manifest["kind"] == "NetworkPolicy"
    }
    for instance in topology.redis:
        if not instance.existing:
            continue
        peer = next(each for each in topology.egress if each.key.startswith("redis.") and instance.port in each.ports)
        wanted = let_out(peer)
        sources = {"superset"} | ({"exporter"} if instance.carries_broker else set[str]())
        for source in ("superset", "exporter"):
            if (wanted in policies.get(f"allow-from-{source}", {}).get("egress", [])) != (source in sources):
                yield f"{source} to {instance.host}: {policies.get(f'allow-from-{source}')}"


def superset_is_the_teams_own(objects: Objects, topology: Topology) -> Iterator[str]:
    """Every process that runs Superset has the team's module and variables, and is rolled by a change of what the stack keeps;
    the sign-on's secret is in the web tier alone.
    """
    superset = topology.superset
    variables = {*superset.env}
    signs_on = bool(superset.sign_on and superset.sign_on.needs_secret)
    if superset.config_module:
        variables.add("SUPERSET_ASYNC_CONFIG_MODULE")
    for where, template, manifest in pods(objects):
        if template["metadata"]["labels"].get("app.kubernetes.io/name") != "superset":
            continue
        container = template["spec"]["containers"][0]
        given = {variable["name"] for variable in container["env"]}
        if missing := variables - given:
            yield f"{where} lacks {sorted(missing)}"
        if ("SIGN_ON_SECRET" in given) != (signs_on and where == "Deployment/web"):
            yield f"{where} has the secret of the sign-on, or lacks it"
        paths = {mount["mountPath"] for mount in container["volumeMounts"]}
        if superset.config_module and "/etc/superset-async-own" not in paths:
            yield f"{where} has no module"
        if superset.config_module and "superset-async/own-module" not in template["metadata"]["annotations"]:
            yield f"{where} is not rolled by a changed module"
        kept = sorted({secret for secret, _ in kept_elsewhere(superset).values()})
        if manifest["kind"] == "Deployment" and kept:
            told = manifest["metadata"].get("annotations", {}).get("secret.reloader.stakater.com/reload")
            if told != ",".join(kept):
                yield f"{where} is not rolled by {kept}: {told}"


def sign_on_is_let_out_to(objects: Objects, topology: Topology) -> Iterator[str]:
    """The web tier, and nothing else, reaches the identity provider or the directory: one port, in its networks."""
    sign_on = topology.superset.sign_on
    policies = {
        manifest["metadata"]["name"]: manifest["spec"] for manifest in objects if manifest["kind"] == "NetworkPolicy"
    }
    found = policies.get("allow-from-web", {}).get("egress", [])
    if sign_on is None or sign_on.peer is None:
        return
    wanted = let_out(next(peer for peer in topology.egress if peer.key == "superset.sign_on"))
    if found != [wanted]:
        yield f"web to its sign-on: {found}"


def _allowed(
    policies: list[Manifest], direction: str, peers: str, own: dict[str, str], other: dict[str, str], port: int
) -> bool:
    return any(
        any(each["port"] == port for each in rule.get("ports", []))
        and any(matches(peer.get("podSelector", {}).get("matchLabels", {"?": "?"}), other) for peer in rule.get(peers, []))
        for policy in policies
        if matches(policy["podSelector"].get("matchLabels", {}), own)
        for rule in policy.get(direction, [])
    )


def the_topology_arrives_whole(objects: Objects, topology: Topology) -> Iterator[str]:
    carried = chosen(objects, "ConfigMap", "superset-topology")["data"]["topology.json"]
    if Topology.model_validate_json(carried) != topology:
        yield "the ConfigMap holds another topology"


Rule = Callable[[Objects, Topology], Iterator[str]]
RULES: tuple[Rule, ...] = (
    objects_are_valid,
    objects_say_where_and_whose_they_are,
    containers_ask_for_resources,
    pods_are_restricted,
    references_lead_somewhere,
    selectors_pick_pods,
    scaled_deployments_say_no_replicas,
    what_can_be_several_survives_a_drain,
    workers_listen_and_end_as_their_pool_says,
    scalers_read_the_broker,
    superset_waits_for_its_metadata,
    a_tenants_pods_are_told_apart,
    what_keeps_nothing_leaves_a_lost_node,
    volumes_are_of_the_stacks_class,
    one_beat_at_most,
    a_broker_evicts_no_task,
    redis_is_reached_as_it_listens,
    postgres_is_reached_as_it_listens,
    certificates_are_of_the_names_that_clients_use,
    every_flow_has_a_policy,
    existing_servers_are_let_out_to,
    superset_is_the_teams_own,
    sign_on_is_let_out_to,
    the_topology_arrives_whole,
)


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_stack_holds_every_rule(stack: str, rule: Rule) -> None:
    assert list(rule(recorded(stack).manifests(), topology_of(stack))) == []


def _pod(objects: Objects, kind: str, name: str) -> Manifest:
    return chosen(objects, kind, name)["spec"]["template"]["spec"]


def _container(objects: Objects, kind: str, name: str) -> Manifest:
    return _pod(objects, kind, name)["containers"][0]


def _volume(objects: Objects, deployment: str, name: str) -> Manifest:
    return next(each for each in _pod(objects, "Deployment", deployment)["volumes"] if each["name"] == name)


#: The stack in which a rule's mistakes are planted, where it says nothing of enterprise.
_PLANTED_IN: dict[Rule, str] = {
    redis_is_reached_as_it_listens: "tls",
    postgres_is_reached_as_it_listens: "tls",
    certificates_are_of_the_names_that_clients_use: "tls",
    existing_servers_are_let_out_to: "existing-redis",
    superset_is_the_teams_own: "own-superset",
    sign_on_is_let_out_to: "own-superset",
    a_tenants_pods_are_told_apart: "multi-tenant",
}


def _scaler(objects: Objects) -> Manifest:
    return chosen(objects, "ScaledObject", "worker-default-scaler")["spec"]


def _say(target: Manifest, **values: Any) -> None:
    target.update(values)


#: A mistake that somebody could make in a component, and the rule that has to name it.
MISTAKES: list[tuple[Rule, Callable[[Objects], object]]] = [
    (what_keeps_nothing_leaves_a_lost_node, lambda o: _pod(o, "Deployment", "beat").pop("tolerations")),
    (
        what_keeps_nothing_leaves_a_lost_node,
        lambda o: _say(_pod(o, "Deployment", "web")["tolerations"][0], tolerationSeconds=300),
    ),
    (
        what_keeps_nothing_leaves_a_lost_node,
        lambda o: _say(_pod(o, "StatefulSet", "postgres"), tolerations=_pod(o, "Deployment", "web")["tolerations"]),
    ),
    (
        volumes_are_of_the_stacks_class,
        lambda o: _say(
            chosen(o, "StatefulSet", "postgres")["spec"]["volumeClaimTemplates"][0]["spec"], storageClassName="fast"
        ),
    ),
    (
        objects_are_valid,
        # What Kubernetes 1.28 does not know.
        lambda o: _say(_container(o, "Deployment", "web")["lifecycle"], preStop={"sleep": {"seconds": 10}}),
    ),
    (objects_are_valid, lambda o: _say(chosen(o, "Deployment", "web")["spec"], replica=3)),
    (objects_are_valid, lambda o: _say(_container(o, "Deployment", "web"), resources={"requests": {"cpu": True}})),
    (objects_say_where_and_whose_they_are, lambda o: chosen(o, "Service", "web")["metadata"].pop("namespace")),
    (objects_say_where_and_whose_they_are, lambda o: chosen(o, "Service", "web")["metadata"].pop("labels")),
    (objects_say_where_and_whose_they_are, lambda o: o.append(chosen(o, "Service", "web"))),
    (containers_ask_for_resources, lambda o: _container(o, "Deployment", "web")["resources"]["requests"].pop("cpu")),
    (containers_ask_for_resources, lambda o: _pod(o, "StatefulSet", "postgres")["initContainers"][0].pop("resources")),
    (pods_are_restricted, lambda o: _say(_pod(o, "Deployment", "web")["securityContext"], runAsUser=0)),
    (pods_are_restricted, lambda o: _container(o, "Deployment", "beat").pop("securityContext")),
    (pods_are_restricted, lambda o: _pod(o, "StatefulSet", "postgres").pop("automountServiceAccountToken")),
    (
        pods_are_restricted,
        lambda o: _pod(o, "Deployment", "web")["volumes"].append({"name": "x", "hostPath": {"path": "/"}}),
    ),
    (references_lead_somewhere, lambda o: o.remove(chosen(o, "Secret", "superset-init"))),
    (references_lead_somewhere, lambda o: o.remove(chosen(o, "ServiceAccount", "web"))),
    (references_lead_somewhere, lambda o: _container(o, "Deployment", "web")["volumeMounts"].append({"name": "x"})),
    (references_lead_somewhere, lambda o: _say(_container(o, "Deployment", "web"), ports=[])),
    (selectors_pick_pods, lambda o: _say(chosen(o, "Service", "web")["spec"], selector={"app": "web"})),
    (selectors_pick_pods, lambda o: chosen(o, "Deployment", "web")["spec"]["template"]["metadata"].update(labels={})),
    (scaled_deployments_say_no_replicas, lambda o: _say(chosen(o, "Deployment", "worker-default")["spec"], replicas=2)),
    (scaled_deployments_say_no_replicas, lambda o: _say(chosen(o, "Deployment", "web")["spec"], replicas=3)),
    (scaled_deployments_say_no_replicas, lambda o: chosen(o, "Deployment", "beat")["spec"].pop("replicas")),
    (what_can_be_several_survives_a_drain, lambda o: o.remove(chosen(o, "PodDisruptionBudget", "web"))),
    (what_can_be_several_survives_a_drain, lambda o: _pod(o, "Deployment", "web").pop("topologySpreadConstraints")),
    (
        workers_listen_and_end_as_their_pool_says,
        lambda o: _say(_container(o, "Deployment", "worker-default"), command=["celery", "worker", "--queues=celery"]),
    ),
    (
        workers_listen_and_end_as_their_pool_says,
        lambda o: _container(o, "Deployment", "worker-default")["command"].insert(0, "sh"),
    ),
    (
        workers_listen_and_end_as_their_pool_says,
        lambda o: _say(_pod(o, "Deployment", "worker-default"), terminationGracePeriodSeconds=30),
    ),
    (
        workers_listen_and_end_as_their_pool_says,
        lambda o: _container(o, "Deployment", "worker-default")["livenessProbe"].pop("terminationGracePeriodSeconds"),
    ),
    (scalers_read_the_broker, lambda o: _scaler(o)["triggers"][0]["metadata"].update(databaseIndex="1")),
    (scalers_read_the_broker, lambda o: _scaler(o)["triggers"][0]["metadata"].update(listName="celery")),
    (scalers_read_the_broker, lambda o: _scaler(o)["triggers"][0]["metadata"].update(addresses="redis-cache:6379")),
    (scalers_read_the_broker, lambda o: _scaler(o)["triggers"][0]["metadata"].update(password="x")),
    (scalers_read_the_broker, lambda o: _scaler(o)["triggers"][0]["metadata"].pop("username")),
    (scalers_read_the_broker, lambda o: _scaler(o)["advanced"]["scalingModifiers"].update(formula="queue1")),
    (superset_waits_for_its_metadata, lambda o: _pod(o, "Deployment", "worker-default").pop("initContainers")),
    (one_beat_at_most, lambda o: _say(chosen(o, "Deployment", "beat")["spec"], replicas=2)),
    (one_beat_at_most, lambda o: o.remove(chosen(o, "Deployment", "beat"))),
    (
        a_broker_evicts_no_task,
        lambda o: chosen(o, "ConfigMap", "redis-broker-config")["data"].update(
            {"redis.conf": "maxmemory-policy allkeys-lru\nsave 900 1 300 100\n"}
        ),
    ),
    (
        a_broker_evicts_no_task,
        lambda o: chosen(o, "ConfigMap", "redis-broker-config")["data"].update({"redis.conf": 'save ""\n'}),
    ),
    (
        redis_is_reached_as_it_listens,
        lambda o: chosen(o, "ConfigMap", "redis-cache-config")["data"].update({"redis.conf": "port 6379\n"}),
    ),
    (redis_is_reached_as_it_listens, lambda o: _volume(o, "web", "redis-cache-ca")["secret"].update(secretName="other")),
    (redis_is_reached_as_it_listens, lambda o: _volume(o, "exporter", "redis-broker-ca")["secret"]["items"].clear()),
    (
        postgres_is_reached_as_it_listens,
        lambda o: chosen(o, "ConfigMap", "postgres-config")["data"].update(
            {"pg_hba.conf": "host all all all scram-sha-256\n"}
        ),
    ),
    (postgres_is_reached_as_it_listens, lambda o: _volume(o, "beat", "postgres-ca")["secret"].update(secretName="other")),
    (
        postgres_is_reached_as_it_listens,
        lambda o: chosen(o, "StatefulSet", "postgres")["spec"]["template"]["spec"]["volumes"][-1]["secret"].update(
            defaultMode=0o444
        ),
    ),
    (
        certificates_are_of_the_names_that_clients_use,
        lambda o: chosen(o, "Certificate", "postgres-tls")["spec"].update(dnsNames=["postgres.other.svc"]),
    ),
    (existing_servers_are_let_out_to, lambda o: o.remove(chosen(o, "NetworkPolicy", "allow-from-exporter"))),
    (sign_on_is_let_out_to, lambda o: o.remove(chosen(o, "NetworkPolicy", "allow-from-web"))),
    (superset_is_the_teams_own, lambda o: _pod(o, "Deployment", "beat")["containers"][0]["env"].clear()),
    (
        superset_is_the_teams_own,
        lambda o: chosen(o, "Deployment", "web")["spec"]["template"]["metadata"]["annotations"].pop(
            "superset-async/own-module"
        ),
    ),
    (superset_is_the_teams_own, lambda o: chosen(o, "Deployment", "web")["metadata"].pop("annotations")),
    (
        existing_servers_are_let_out_to,
        lambda o: chosen(o, "NetworkPolicy", "allow-from-superset")["spec"]["egress"].pop(),
    ),
    (a_tenants_pods_are_told_apart, lambda o: _pod(o, "Deployment", "worker-tenant-a").pop("priorityClassName")),
    (a_tenants_pods_are_told_apart, lambda o: o.remove(chosen(o, "ResourceQuota", "worker-tenant-a-share"))),
    (
        a_tenants_pods_are_told_apart,
        lambda o: chosen(o, "PodDisruptionBudget", "worker-tenant-b")["metadata"]["labels"].pop("superset-async/tenant"),
    ),
    (every_flow_has_a_policy, lambda o: o.remove(chosen(o, "NetworkPolicy", "allow-default-deny"))),
    (every_flow_has_a_policy, lambda o: o.remove(chosen(o, "NetworkPolicy", "allow-to-redis-broker"))),
    (every_flow_has_a_policy, lambda o: chosen(o, "NetworkPolicy", "allow-from-superset")["spec"].update(egress=[])),
    (
        every_flow_has_a_policy,
        lambda o: chosen(o, "NetworkPolicy", "allow-to-postgres")["spec"].update(ingress=[{"ports": [{"port": 5432}]}]),
    ),
    (
        the_topology_arrives_whole,
        lambda o: chosen(o, "ConfigMap", "superset-topology").update(data=recorded_topology("multi-tenant")),
    ),
]


def recorded_topology(stack: str) -> dict[str, str]:
    return chosen(recorded(stack).manifests(), "ConfigMap", "superset-topology")["data"]


@pytest.mark.parametrize(("rule", "plant"), MISTAKES, ids=[f"{rule.__name__}-{n}" for n, (rule, _) in enumerate(MISTAKES)])
def test_a_planted_mistake_is_found(rule: Rule, plant: Callable[[Objects], object]) -> None:
    stack = _PLANTED_IN.get(rule, "enterprise")
    objects = copy.deepcopy(recorded(stack).manifests())
    plant(objects)
    assert list(rule(objects, topology_of(stack)))


def test_every_rule_was_seen_to_find_something() -> None:
    assert {rule for rule, _ in MISTAKES} == set(RULES)


def test_large_results_are_where_web_and_workers_see_them() -> None:
    """The claim is mounted in every pod that writes or reads results, and in no other."""
    mounted = {
        owner
        for owner, container, pod in containers(recorded("cloudnativepg").manifests())
        for mount in container.get("volumeMounts", [])
        if mount["mountPath"] == "/var/lib/superset/results"
        if {"name": mount["name"], "persistentVolumeClaim": {"claimName": "results"}} in pod["volumes"]
    }
    names = {owner.split("/")[1] for owner in mounted}
    assert names == {"web", *(f"worker-{pool.name}" for pool in topology_of("cloudnativepg").pools)}
