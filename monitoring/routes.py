"""Alertmanager's configuration of a stack: pages to PagerDuty and Slack, tickets to Slack, the watchdog to whoever misses it.

Keys and URLs are secrets: the configuration names files that hold them, so it can be committed and read by anyone. On Kubernetes
they are keys of one Secret, mounted where Alertmanager runs (the operator's `spec.secrets` mounts it at `SECRETS/<its name>`).
"""

from __future__ import annotations

from typing import Any

from topology.model import Topology

#: Where the Prometheus operator mounts the Secrets that an Alertmanager names, and the name of ours.
SECRETS = "/etc/alertmanager/secrets/superset-async-alerting"
#: The files in it: a URL of Slack's incoming webhooks, PagerDuty's integration key (Events API v2), and the bearer token of what
#: expects the watchdog.
SLACK, PAGERDUTY, WATCHDOG = "slack-url", "pagerduty-key", "watchdog-token"


def config(topology: Topology, secrets: str = SECRETS, watchdog_url: str | None = None) -> dict[str, Any]:
    """Alertmanager's configuration (0.25 or newer), with the secrets' files in the folder `secrets`.

    `watchdog_url` is told every five minutes that alerting works, and has to raise an alarm of its own when it is not (a dead
    man's switch; not in this cluster). Without one nobody hears the watchdog.
    """
    watchdog: list[dict[str, Any]] = [_heartbeat(watchdog_url, secrets)] if watchdog_url else []
    return {
        "route": {
            # What has no severity of ours is not ours: a shared Alertmanager has this tree as a branch.
            "receiver": "nobody",
            "group_by": ["namespace", "alertname", "queue", "queue_name"],
            "group_wait": "30s",
            "group_interval": "5m",
            "repeat_interval": "4h",
            "routes": [
                {
                    "matchers": [f'namespace="{topology.namespace}"', 'severity="none"'],
                    "receiver": "watchdog",
                    "group_wait": "0s",
                    "group_interval": "1m",
                    "repeat_interval": "5m",
                },
                {"matchers": [f'namespace="{topology.namespace}"', 'severity="page"'], "receiver": "page"},
                {
                    "matchers": [f'namespace="{topology.namespace}"', 'severity="ticket"'],
                    "receiver": "ticket",
                    "repeat_interval": "24h",
                },
            ],
        },
        # A page explains its tickets; without the exporter or the broker nothing else can be believed.
        "inhibit_rules": [
            {
                "source_matchers": ['severity="page"'],
                "target_matchers": ['severity="ticket"'],
                "equal": ["namespace", "alertname", "queue", "queue_name"],
            },
            {
                "source_matchers": ['alertname=~"AsyncExporterLost|AsyncBrokerUnreadable"'],
                "target_matchers": ['severity="ticket"'],
                "equal": ["namespace"],
            },
        ],
        "receivers": [
            {"name": "page", "pagerduty_configs": [_pagerduty(secrets)], "slack_configs": [_slack(secrets)]},
            {"name": "ticket", "slack_configs": [_slack(secrets)]},
            {"name": "watchdog", "webhook_configs": watchdog},
            {"name": "nobody"},
        ],
    }


def _heartbeat(url: str, secrets: str) -> dict[str, Any]:
    token = {"type": "Bearer", "credentials_file": f"{secrets}/{WATCHDOG}"}
    return {"url": url, "send_resolved": False, "http_config": {"authorization": token}}


def _pagerduty(secrets: str) -> dict[str, Any]:
    return {
        "routing_key_file": f"{secrets}/{PAGERDUTY}",
        "severity": "critical",
        "description": "{{ .CommonAnnotations.summary }}",
        "links": [{"text": "Runbook", "href": "{{ .CommonAnnotations.runbook_url }}"}],
    }


def _slack(secrets: str) -> dict[str, Any]:
    return {
        "api_url_file": f"{secrets}/{SLACK}",
        "send_resolved": True,
        "title": "[{{ .Status }}] {{ .CommonLabels.stack }}: {{ .CommonAnnotations.summary }}",
        "title_link": "{{ .CommonAnnotations.runbook_url }}",
        "text": "{{ range .Alerts }}{{ .Annotations.description }}\n{{ end }}",
    }
