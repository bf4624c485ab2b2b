"""Every rule, by subject."""

from __future__ import annotations

from policies.rule import Rule
from policies.rules import aws, celery, network, platform, pods, redis, scaling, secrets

SUBJECTS = {
    "redis": redis.RULES,
    "celery": celery.RULES,
    "scaling": scaling.RULES,
    "pods": pods.RULES,
    "network": network.RULES,
    "secrets": secrets.RULES,
    "aws": aws.RULES,
    "platform": platform.RULES,
}
ALL: tuple[Rule, ...] = tuple(rule for subject in SUBJECTS.values() for rule in subject.rules)
BY_ID: dict[str, Rule] = {rule.id: rule for rule in ALL}
