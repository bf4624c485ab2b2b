"""The four topologies as data: what a stack has where its file says nothing.

Each is the common base with a few values laid over it, in the language of a stack file, so that a preset and an override are
the same thing. Where a number is not the article's, docs/decisions says what was measured.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Literal, cast, get_args

TopologyName = Literal["minimal", "enterprise", "high-throughput", "multi-tenant"]
NAMES: tuple[str, ...] = get_args(TopologyName)


def _resources(cpu_request: str, cpu_limit: str, memory_request: str, memory_limit: str) -> dict[str, str]:
    return {
        "cpu_request": cpu_request,
        "cpu_limit": cpu_limit,
        "memory_request": memory_request,
        "memory_limit": memory_limit,
    }


_BASE: dict[str, Any] = {
    "platform": "kubernetes",
    "environment": "dev",
    "namespace": "superset",
    "existing_namespace": False,
    "storage_class": None,
    "labels": {},
    "images": {
        "superset": "superset-async:6.1.0-1",
        "redis": "valkey/valkey:8.1.4",
        "postgres": "postgres:18.1",
        "postgres_user": None,
        "drivers": [],
        "pull_secrets": [],
        "pull_policy": "IfNotPresent",
    },
    "redis": {
        "broker": {
            "existing": None,
            "maxmemory": "384Mi",
            "maxmemory_policy": "volatile-lru",
            "persistence": "aof",
            "replicas": 0,
            "sentinel": False,
            "volume_size": "2Gi",
            "resources": _resources("100m", "500m", "512Mi", "512Mi"),
        },
        "cache": None,
        "tls": None,
    },
    "postgres": {
        "kind": "statefulset",
        "host": None,
        "port": 5432,
        "cidrs": None,
        "ca_secret": None,
        "tls": None,
        "database": "superset",
        "user": "superset",
        "max_connections": None,
        "reserved_connections": 10,
        "instances": 1,
        "backup": None,
        "volume_size": "5Gi",
        "resources": _resources("250m", "1", "512Mi", "1Gi"),
    },
    "superset": {
        "feature_flags": {},
        "settings": {},
        "own_settings": {},
        "config_module": None,
        "env": {},
        "log_sql": False,
        "audit": True,
        "audit_sql": False,
        "sign_on": None,
        "embedding": None,
    },
    "tracing": {"endpoint": None, "cidrs": None, "ratio": 1.0, "sql": False},
    "web": {
        "min_replicas": 1,
        "max_replicas": 1,
        "processes": 2,
        "threads": 10,
        "request_timeout": 120,
        "secure_cookies": True,
        "proxies": 1,
        "max_upload": "100Mi",
        "login_rate": "5 per second",
        "telemetry": False,
        "cpu_target": 70,
        "route": None,
        # Each thread has one while it waits; two more are there for what some count and record in a moment.
        "connections": {"size": 5, "max_overflow": 7, "recycle": 300},
        "resources": _resources("500m", "1", "1Gi", "2Gi"),
    },
    "celery": {
        "result_backend": "redis",
        "default_queue": "default",
        "queues": ["default"],
        "acks_late": False,
        "soft_time_limit": 540,
        "time_limit": 600,
        "visibility_timeout": 3600,
        "result_expires": 3600,
        "compression": "none",
        "message_key": 1,
        "accept_unsigned_messages": False,
        "connections": {"size": 1, "max_overflow": 1, "recycle": 300},
    },
    "workers": {
        "concurrency": 2,
        "min_workers": 1,
        "max_workers": 2,
        "prefetch_multiplier": 4,
        "max_tasks_per_child": 1000,
        "max_memory_per_child": None,
        "grace_period": 600,
        "scaling": None,
        "resources": _resources("250m", "1", "1Gi", "2Gi"),
    },
    "pools": {"default": {}},
    "beat_resources": _resources("50m", "1", "128Mi", "768Mi"),
    "metrics": {
        "from_namespaces": ["monitoring"],
        "service_monitor": False,
        "rules": False,
        "runbooks": "docs/runbooks",
        "objectives": {"wait": 30.0, "waits_met": 99.0, "ends_well": 99.5},
        "resources": _resources("20m", "250m", "64Mi", "128Mi"),
    },
    "caching": {
        "chart_data_ttl": 3600,
        "query_results_ttl": 3600,
        "jitter": 10,
        "early_refresh": 1.0,
        "stale": 60,
        "single_flight": True,
        "compression": "zstd",
        "compress_above": "1Ki",
        "max_result": "64Mi",
        "spill": None,
        "bucket": None,
    },
    "resilience": {
        "max_queued": 1000,
        "max_in_flight_per_user": 100,
        "max_retries": 3,
        "retry_backoff": 600,
        "final_state": 60,
    },
    "urgent": None,
    "rates": {"worker_hour": 0.50, "redis_hour": 0.10, "currency": "USD"},
    "statement_timeout": 530,
    "row_limit": 100000,
    "network": {
        "dns": ["kube-dns", "node-local"],
        "dns_cidrs": [],
        "egress": {},
        "api_server_cidrs": ["0.0.0.0/0", "::/0"],
        "operator_namespaces": {"keda": "keda", "cloudnativepg": "cnpg-system"},
    },
    "databases": {},
    "tenants": {},
    "maintenance": {"query_retention_days": 90, "log_retention_days": 90, "cron": "17 3 * * *"},
    "admin_username": "admin",
    "policy_exceptions": [],
    "aws": None,
    "local": {
        "web_port": 8088,
        "redis_port": 16379,
        "postgres_port": 15432,
        "exporter_port": 9808,
        "prometheus_port": 9090,
        "alertmanager_port": 9093,
    },
}

_HIGHLY_AVAILABLE: dict[str, Any] = {
    "redis": {
        "broker": {
            "maxmemory": "2Gi",
            "maxmemory_policy": "noeviction",
            "replicas": 2,
            "sentinel": True,
            "volume_size": "10Gi",
            "resources": _resources("250m", "1", "3Gi", "3Gi"),
        },
        "cache": {
            "existing": None,
            "maxmemory": "4Gi",
            "maxmemory_policy": "volatile-lru",
            "persistence": "rdb",
            "replicas": 2,
            "sentinel": True,
            "volume_size": "10Gi",
            "resources": _resources("250m", "1", "6Gi", "6Gi"),
        },
    },
    "postgres": {
        "volume_size": "20Gi",
        "backup": {"cron": "41 1 * * *", "keep": 7, "volume_size": "20Gi"},
        "resources": _resources("1", "4", "4Gi", "8Gi"),
    },
    "web": {
        "min_replicas": 3,
        "max_replicas": 6,
        "connections": {"size": 10, "max_overflow": 20, "recycle": 300},
    },
    "celery": {"acks_late": True},
    "workers": {
        "concurrency": 4,
        "min_workers": 2,
        "max_workers": 20,
        "prefetch_multiplier": 1,
        "max_tasks_per_child": 100,
        "max_memory_per_child": "433M",
        "scaling": {"kind": "keda", "cpu_target": 70, "queued_per_worker": 50, "scale_in_window": 300},
        "resources": _resources("500m", "1", "1Gi", "2Gi"),
    },
}

_OVERRIDES: dict[TopologyName, list[dict[str, Any]]] = {
    "minimal": [],
    "enterprise": [_HIGHLY_AVAILABLE, {"celery": {"result_backend": "postgresql"}}],
    "high-throughput": [
        _HIGHLY_AVAILABLE,
        {
            "celery": {
                "soft_time_limit": 270,
                "time_limit": 300,
                "result_expires": 1800,
                "compression": "gzip",
            },
            "workers": {"max_tasks_per_child": 500, "grace_period": 330},
            "caching": {"query_results_ttl": 1800},
            "statement_timeout": 260,
        },
    ],
    "multi-tenant": [
        _HIGHLY_AVAILABLE,
        {
            "celery": {"result_backend": "postgresql", "queues": ["default", "priority"]},
            "workers": {"concurrency": 2, "min_workers": 1, "max_workers": 10},
            "pools": {"default": {"concurrency": 4}, "priority": {}},
            "urgent": {"queue": "priority", "roles": [], "marker_roles": ["Admin"]},
        },
    ],
}


#: What differs on AWS in every topology, and then in some. Sizes in Redis's and PostgreSQL's own sections do not count there.
_ON_AWS: dict[str, Any] = {
    "redis": {"broker": {"sentinel": False, "persistence": "rdb"}},
    "postgres": {"kind": "rds", "backup": None},
    "aws": {
        "account": None,
        "region": "eu-central-1",
        "network": {
            "existing": None,
            "cidr": "10.40.0.0/16",
            "zones": ["eu-central-1a", "eu-central-1b", "eu-central-1c"],
            "nat": "zone",
            "endpoints": ["ecr.api", "ecr.dkr", "sts", "logs", "eks-auth"],
            "flow_log_days": 30,
        },
        "cluster": {
            "existing": None,
            "version": "1.35",
            "compute": "auto",
            "instance_types": ["m7g.xlarge"],
            "min_nodes": 3,
            "max_nodes": 12,
            "public_cidrs": [],
            "administrators": [],
            "log_days": 90,
            "keda_manifest": None,
        },
        "redis": {
            "engine_version": "8.2",
            "reserved_memory_percent": 25,
            "snapshot_window": "01:00-02:00",
            "maintenance_window": "sun:03:00-sun:04:00",
            "broker": {"node_type": "cache.t4g.small", "snapshot_days": 7},
            "cache": {"node_type": "cache.t4g.small", "snapshot_days": 7},
        },
        "postgres": {
            "engine_version": "18.4",
            "instance_class": "db.t4g.medium",
            "max_storage_gib": 100,
            "multi_az": True,
            "backup_days": 14,
            "backup_window": "02:00-03:00",
            "maintenance_window": "sun:04:00-sun:05:00",
            "insights_mode": "standard",
            "insights_days": 7,
            "deletion_protection": True,
            "managed_password": True,
        },
        "results": "s3",
        "repository": "superset-async",
        "load_balancer": None,
        "alarm_emails": [],
    },
}
_LARGE_ON_AWS: dict[str, Any] = {
    "redis": {"cache": {"sentinel": False, "persistence": "none"}},
    "postgres": {"volume_size": "50Gi"},
    "aws": {
        "redis": {"broker": {"node_type": "cache.m7g.large"}, "cache": {"node_type": "cache.m7g.large"}},
        "postgres": {"instance_class": "db.m7g.large", "max_storage_gib": 500},
    },
}
_OVERRIDES_ON_AWS: dict[TopologyName, list[dict[str, Any]]] = {
    "minimal": [_ON_AWS, {"redis": {"broker": {"replicas": 1}}, "postgres": {"volume_size": "20Gi"}}],
    "enterprise": [_ON_AWS, _LARGE_ON_AWS],
    "high-throughput": [_ON_AWS, _LARGE_ON_AWS],
    # Room for connections of more tenants' workers.
    "multi-tenant": [_ON_AWS, _LARGE_ON_AWS, {"aws": {"postgres": {"instance_class": "db.m7g.xlarge"}}}],
}


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `over` laid on it: mappings merge key by key, anything else (null too) replaces."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            merged[key] = merge(cast(Mapping[str, Any], below), cast(Mapping[str, Any], value))
        else:
            merged[key] = value
    return merged


def settings_of(topology: TopologyName, *, on_aws: bool = False) -> dict[str, Any]:
    """Every setting of `topology` as a stack file would say it, on AWS or elsewhere; a fresh copy."""
    settings = copy.deepcopy(_BASE) | {"topology": topology}
    for override in (*_OVERRIDES[topology], *(_OVERRIDES_ON_AWS[topology] if on_aws else ())):
        settings = merge(settings, override)
    return settings
