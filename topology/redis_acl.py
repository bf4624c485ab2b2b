"""Who may do what on a Redis server, as the lines of Redis's ACL files."""

from __future__ import annotations

from collections.abc import Mapping

from topology.model import RedisInstance, RedisRole, RedisUser

#: For people, probes, replication and Sentinel: everything.
OPERATOR = "operator"
#: Whoever gives no user's name is nobody.
NOBODY = "user default off resetkeys resetchannels -@all"
#: What users may not do even on keys of their own: administer (CONFIG, REPLICAOF, SHUTDOWN …), stall or empty the server
#: (KEYS, FLUSHALL, SORT …), see the names of other users' keys, leave functions behind.
FORBIDDEN = "-@admin -@dangerous -scan -randomkey -function -fcall -fcall_ro -script"
#: Locks and rate limits are scripts, and one that does not end is ended: `runtime.environment.script_watchdog`.
SCRIPTS = "+script|load +script|kill"
#: What each role may do on its keys and channels. INFO says how much memory the server has left. Scripts of the reader (KEDA
#: sends one) may do no more than it may do itself. The monitor is whom Celery's own tools need: it asks workers, hears their
#: events, and reads what waits in the queues.
COMMANDS: dict[RedisRole, str] = {
    "broker": f"+@all {FORBIDDEN} {SCRIPTS} +info",
    "cache": f"+@all {FORBIDDEN} {SCRIPTS} +info",
    "reader": f"-@all +@read +@connection +eval +evalsha +multi +exec {FORBIDDEN} +info",
    "monitor": (
        f"-@all +@read +@connection +@pubsub +multi +exec +discard +brpop +sadd +srem +del +expire {FORBIDDEN} +info"
    ),
}
#: What clients ask a Sentinel, and no more: FAILOVER, SET and REMOVE are the operator's.
ASKED = (
    "+auth +hello +ping +client|setname +client|setinfo +subscribe +psubscribe +unsubscribe +punsubscribe "
    "+sentinel|get-master-addr-by-name +sentinel|master +sentinel|masters "
    "+sentinel|replicas +sentinel|slaves +sentinel|sentinels"
)


def server_acl(instance: RedisInstance, passwords: Mapping[RedisRole, str], operator_password: str) -> str:
    """The ACL file of the instance's servers: each user has its own keys and channels. Passwords hold no white space."""
    lines = [NOBODY, _operator(operator_password)]
    lines += [f"user {user.username} on >{passwords[user.role]} {_rights(user)}" for user in instance.users]
    return "\n".join(lines) + "\n"


def sentinel_acl(instance: RedisInstance, passwords: Mapping[RedisRole, str], operator_password: str) -> str:
    """The ACL file of the instance's Sentinels: its users may ask where the primary is, and hear of a new one."""
    lines = [NOBODY, _operator(operator_password)]
    lines += [f"user {user.username} on >{passwords[user.role]} &* -@all {ASKED}" for user in instance.users]
    return "\n".join(lines) + "\n"


def access_string(user: RedisUser) -> str:
    """The same rights as ElastiCache takes them: without the user's name and password, which it has apart."""
    return f"on {_rights(user)}"


def _operator(password: str) -> str:
    return f"user {OPERATOR} on >{password} ~* &* +@all"


def _rights(user: RedisUser) -> str:
    return f"{_reach(user)} {COMMANDS[user.role]}"


def _reach(user: RedisUser) -> str:
    keys = " ".join((*(f"~{pattern}" for pattern in user.keys), *(f"%R~{pattern}" for pattern in user.reads)))
    channels = "".join(f" &{pattern}" for pattern in (*user.channels, *user.subscriptions))
    return f"resetkeys {keys} resetchannels{channels}"
