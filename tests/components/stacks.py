"""The stacks that the tests of components look at: every stack file for Kubernetes, and two that say everything else."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

from infra import program, recording
from infra.recording import Recording
from topology import stack_file
from topology.model import Topology

#: Settings of no stack file: an existing server with encrypted secrets, an Ingress and an HPA; CloudNativePG and a Gateway;
#: spilled results; servers over TLS; Redis servers that exist, in this project's and another's keeping, and one for everything; a
#: team's own Superset with an identity provider, and one with a directory.
OTHERS: dict[str, dict[str, Any]] = {
    "existing": {
        "topology": "enterprise",
        "labels": {"team": "data"},
        "postgres": {
            "kind": "existing",
            "host": "db.example.com",
            "cidrs": ["10.8.0.0/24"],
            "ca_secret": "postgres-authority",
            "max_connections": 900,
            "backup": None,
        },
        "postgres_password": "given-postgres-password",
        "databases": {
            "warehouse": {"cidrs": ["10.20.0.0/16"], "ports": [5432]},
            "lake": {"uri": "postgresql://lake.example.com/hive", "cidrs": ["10.21.0.0/16"]},
            "events": {"uri": "postgresql://10.22.0.7:5433/events"},
            "sales": {"uri": "postgresql://replica.sales.svc/sales"},
        },
        "database_uris": {"warehouse": "postgresql://reader:given-uri-password@warehouse.example.com/dwh"},
        "network": {"egress": {"mail": {"cidrs": ["0.0.0.0/0", "10.1.0.0/28"], "ports": [587]}}},
        "metrics": {"service_monitor": True, "rules": True, "runbooks": "https://wiki.example.com/superset/"},
        "workers": {
            "scaling": {"kind": "hpa", "cpu_target": 70, "queued_per_worker": 50, "scale_in_window": 300},
        },
        "web": {
            "route": {
                "kind": "ingress",
                "host": "superset.example.com",
                "parent": "nginx",
                "tls_secret": "superset-tls",
                "from_namespaces": ["ingress-nginx"],
            }
        },
    },
    "cloudnativepg": {
        "topology": "multi-tenant",
        "tenants": {"acme": {"users": ["ann"], "concurrency": 3}},
        "redis": {"cache": {"persistence": "none", "replicas": 1, "sentinel": False}},
        "caching": {"spill": {"above": "1Mi", "folder": "/var/lib/superset/results", "claim": "results"}},
        "postgres": {"kind": "cloudnativepg", "instances": 3, "tls": {"kind": "generated"}},
        "storage_class": "fast",
        "network": {"operator_namespaces": {"keda": "autoscaling", "cloudnativepg": "databases"}},
        "web": {
            "route": {
                "kind": "gateway",
                "host": "superset.example.com",
                "parent": "gateways/public",
                "tls_secret": None,
                "from_namespaces": ["gateways"],
            }
        },
    },
    "tls": {
        "topology": "enterprise",
        "redis": {"tls": {"kind": "secret", "secret": "redis-certificate"}},
        "postgres": {
            "tls": {"kind": "cert-manager", "issuer": "internal-ca", "issuer_kind": "ClusterIssuer"},
            "backup": {"cron": "17 3 * * *", "keep": 3, "volume_size": "1Gi"},
        },
    },
    "existing-redis": {
        "topology": "enterprise",
        "redis": {
            "broker": {
                "existing": {
                    "host": "broker.example.com",
                    "username": "superset",
                    "tls": True,
                    "ca_secret": "redis-ca",
                    "cidrs": ["10.10.0.0/24"],
                },
                "replicas": 0,
                "sentinel": False,
            },
            "cache": {
                "existing": {
                    "host": "10.9.0.7",
                    "port": 6380,
                    "tls": True,
                    "password_secret": "cache-login",
                    "cidrs": ["10.9.0.0/24"],
                },
                "replicas": 0,
                "sentinel": False,
            },
        },
        "redis_passwords": {"broker": "given-redis-password"},
    },
    "own-superset": {
        "topology": "multi-tenant",
        "tenants": {"acme": {"groups": ["acme-analysts"]}},
        "superset": {
            "feature_flags": {"ENABLE_TEMPLATE_PROCESSING": True},
            "settings": {"APP_NAME": "Acme", "SMTP_PASSWORD": {"from_env": "SMTP_PASSWORD"}},
            "config_module": "../docs/examples/acme",
            "env": {"SMTP_PASSWORD": {}, "ACME_BILLING_TOKEN": {"secret": "acme-billing", "key": "token"}},
            "sign_on": {
                "oidc": {"provider": "keycloak", "issuer": "https://login.example.com/realms/acme", "client_id": "superset"},
                "roles": {"acme-admins": ["Admin"]},
                "cidrs": ["10.30.0.0/24"],
            },
        },
        "superset_env": {"SMTP_PASSWORD": "given-smtp-password"},
        "sign_on_secret": "given-client-secret",
    },
    "ldap": {
        "topology": "minimal",
        "superset": {
            "sign_on": {
                "ldap": {
                    "server": "ldaps://ldap.example.com",
                    "search": "ou=people,dc=example,dc=com",
                    "bind_user": "cn=superset,dc=example,dc=com",
                    "bind_password": {"secret": "ldap-account", "key": "password"},
                    "ca_secret": "ldap-authority",
                },
                "cidrs": ["10.31.0.5/32"],
            }
        },
    },
    "existing-shared-redis": {
        "topology": "minimal",
        "redis": {"broker": {"existing": {"host": "valkey.stores.svc"}}},
        "redis_passwords": {"broker": "given-redis-password"},
    },
}
#: Every value in `OTHERS` that is a secret.
GIVEN_SECRETS = (
    "given-postgres-password",
    "given-uri-password",
    "given-redis-password",
    "given-smtp-password",
    "given-client-secret",
)
SECRET_KEYS = frozenset(program.SECRET_KEYS)
STACKS = ("minimal", "enterprise", "high-throughput", "multi-tenant", *OTHERS)


def config_of(stack: str) -> dict[str, Any]:
    """The keys of a stack: of its file, or of `OTHERS`."""
    return copy.deepcopy(OTHERS[stack]) if stack in OTHERS else stack_file.read(stack)


@cache
def recorded(stack: str) -> Recording:
    """What the program registers for a stack, with placeholders for generated secrets."""
    return recording.record(stack, config_of(stack), secret_keys=SECRET_KEYS)


@cache
def topology_of(stack: str) -> Topology:
    """The topology of a stack."""
    planned, _ = program.read(
        stack, recording.as_engine_config(config_of(stack)), lambda key: key.partition(":")[2] in SECRET_KEYS
    )
    return planned
