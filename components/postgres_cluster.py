"""The metadata database as a `Cluster` of CloudNativePG: a primary and its replicas, which that operator looks after."""

from __future__ import annotations

import pulumi
from pulumi_kubernetes.apiextensions import CustomResource
from pulumi_kubernetes.core import v1 as core

from components.certificate import Certificate, CertificateArgs
from components.common import labels, metadata, name_of
from components.network import Flow, Group
from components.postgres import NAME, PASSWORD, PostgresArgs, certificate_names, user_of
from topology.postgres_settings import server_settings
from topology.quantities import format_cpu, format_memory

#: Where the operator asks every server for its state.
STATUS_PORT = 8000
#: The operator's servers always listen here.
PORT = 5432


def cluster_flows(servers: Group, operator: str) -> list[Flow]:
    """What the servers need beside their clients: each other, and the operator, which is in the namespace `operator`."""
    return [
        Flow(servers, servers, PORT),
        Flow(servers, servers, STATUS_PORT),
        Flow(operator, servers, PORT),
        Flow(operator, servers, STATUS_PORT),
    ]


class PostgresCluster(pulumi.ComponentResource):
    """A CloudNativePG `Cluster`; the Service of the component's name always leads to the primary.

    The operator makes role and database from the Secret, and follows a new password.
    """

    #: Labels of its pods, for network policies.
    match: dict[str, str]
    #: The Secret with the role's password.
    secret: pulumi.Output[str]

    def __init__(self, name: str, args: PostgresArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("superset-async:postgres_cluster:PostgresCluster", name, None, opts)
        scope, postgres, image = args.scope, args.postgres, args.images.postgres
        child = pulumi.ResourceOptions(parent=self)
        object_labels = labels(scope, NAME, name)
        self.match = {"cnpg.io/cluster": name}
        secret = core.Secret(
            f"{name}-auth",
            metadata=metadata(scope, f"{name}-auth", {**object_labels, "cnpg.io/reload": "true"}),
            type="kubernetes.io/basic-auth",
            string_data={"username": postgres.user, PASSWORD: args.password},
            opts=child,
        )
        self.secret = name_of(secret.metadata, f"{name}-auth")
        resources = postgres.resources
        CustomResource(
            name,
            api_version="postgresql.cnpg.io/v1",
            kind="Cluster",
            metadata=metadata(scope, name, object_labels),
            spec={
                "instances": postgres.instances,
                "imageName": image,
                "imagePullPolicy": args.images.pull_policy,
                **({"imagePullSecrets": [{"name": each} for each in scope.pull_secrets]} if scope.pull_secrets else {}),
                "postgresUID": user_of(postgres, args.images),
                "postgresGID": user_of(postgres, args.images),
                "enableSuperuserAccess": False,
                "bootstrap": {
                    "initdb": {
                        "database": postgres.database,
                        "owner": postgres.user,
                        "secret": {"name": self.secret},
                        "encoding": "UTF8",
                        "localeCollate": "C.UTF-8",
                        "localeCType": "C.UTF-8",
                        "dataChecksums": True,
                    }
                },
                "postgresql": {
                    "parameters": server_settings(postgres),
                    # Between the operator's own rules and the one that lets in everybody else who has a password.
                    **({"pg_hba": ["hostnossl all all all reject"]} if postgres.tls else {}),
                },
                **({"certificates": self._certificates(name, args, object_labels, child)} if postgres.tls else {}),
                "storage": {
                    "size": format_memory(postgres.volume_bytes),
                    **({"storageClass": scope.storage_class} if scope.storage_class else {}),
                },
                "resources": {
                    "requests": {
                        "cpu": format_cpu(resources.cpu_request_millis),
                        "memory": format_memory(resources.memory_request_bytes),
                    },
                    "limits": {
                        "cpu": format_cpu(resources.cpu_limit_millis),
                        "memory": format_memory(resources.memory_limit_bytes),
                    },
                },
                "affinity": {
                    "enablePodAntiAffinity": True,
                    "topologyKey": "kubernetes.io/hostname",
                    "podAntiAffinityType": "preferred",
                },
                "inheritedMetadata": {"labels": object_labels},
                "managed": {
                    "services": {
                        # Only what is used: the primary, under the name that everything else has.
                        "disabledDefaultServices": ["ro", "r"],
                        "additional": [
                            {
                                "selectorType": "rw",
                                "serviceTemplate": {"metadata": {"name": name, "labels": object_labels}},
                            }
                        ],
                    }
                },
            },
            opts=child,
        )
        self.register_outputs({"secret": self.secret})

    def _certificates(
        self, name: str, args: PostgresArgs, object_labels: dict[str, str], opts: pulumi.ResourceOptions
    ) -> dict[str, pulumi.Input[object]]:
        """What the servers show. Left alone, the operator makes an authority and certificates, and renews them."""
        tls = args.postgres.tls
        if tls is None or tls.certificate is None:
            return {}
        names = pulumi.Output.from_input(args.scope.namespace).apply(
            lambda namespace: certificate_names(args.postgres, namespace)
        )
        if tls.certificate.kind == "generated":
            return {"serverAltDNSNames": names}
        made = Certificate(f"{name}-tls", CertificateArgs(args.scope, tls, names, object_labels), opts)
        return {"serverTLSSecret": made.secret, "serverCASecret": made.secret}
