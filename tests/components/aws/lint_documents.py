# pyright: basic, reportMissingImports=false
"""Run in the scanners' environment: parliament's findings on the policy documents that come as a JSON list, as one of theirs."""

from __future__ import annotations

import json
import sys

from parliament import analyze_policy_string, enhance_finding

found: list[list[str]] = []
for number, document in enumerate(json.load(sys.stdin)):
    for finding in analyze_policy_string(json.dumps(document)).findings:
        detail = enhance_finding(finding)
        found.append(
            [str(number), detail.issue, str(detail.detail or detail.title), str(detail.location.get("actions", ""))]
        )
json.dump(found, sys.stdout)
