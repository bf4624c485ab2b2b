"""A Redis server at `maxmemory` on a volume of the size that its persistence needs, which then is full: what it survives.

`python -m tests.components.full_disk FOLDER PROGRAM aof|rdb [MEBIBYTES]` in a mount namespace of its own, as
`unshare --user --map-root-user --mount --net` makes one; `test_persistence.py` runs it so. Each step that was seen to hold is one
JSON line, with its figures.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import redis as redis_client

from tests.components.redis_pod import RedisPod
from topology.settings.redis import Persistence
from topology.valkey_conf import volume_needed

VALUE = 64 * 2**10


def say(step: str, **figures: object) -> None:
    print(json.dumps({"step": step, **figures}), flush=True)


def until(what: str, holds: Callable[[], object], seconds: float = 120) -> float:
    """Seconds until `holds`; an error of Redis is no answer."""
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        try:
            if holds():
                return round(time.monotonic() - begun, 1)
        except redis_client.RedisError:
            pass
        time.sleep(0.1)
    raise TimeoutError(what)


class Peak(threading.Thread):
    """The most bytes that the volume had in use."""

    def __init__(self, volume: Path) -> None:
        super().__init__(daemon=True)
        self._volume, self.bytes, self.ended = volume, 0, threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.01):
            self.bytes = max(self.bytes, used(self._volume))


def used(volume: Path) -> int:
    state = os.statvfs(volume)
    return (state.f_blocks - state.f_bfree) * state.f_frsize


def fill(client: Any) -> int:
    """Write values that do not compress until the server is at `maxmemory`; how many."""
    written = 0
    try:
        while True:
            client.set(f"value-{written}", os.urandom(VALUE))
            written += 1
    except redis_client.OutOfMemoryError:
        return written


def overwrite(client: Any, number: int) -> None:
    """Another value for one that is there, in the memory that it had."""
    client.delete(f"value-{number}")
    client.set(f"value-{number}", os.urandom(VALUE))


def at_rest(client: Any) -> bool:
    state = client.info("persistence")
    return not state["rdb_bgsave_in_progress"] and not state["aof_rewrite_in_progress"]


def healthy(client: Any) -> bool:
    state = client.info("persistence")
    fine = state["rdb_last_bgsave_status"] == state["aof_last_write_status"] == state["aof_last_bgrewrite_status"] == "ok"
    return at_rest(client) and fine


def refused(client: Any) -> bool:
    """Whether a write is refused since the disk is full, while reads go on."""
    try:
        # Several at a time, to come to the end of what the file system has left.
        for number in range(16):
            client.set(f"late-{number}", os.urandom(4096))
    except redis_client.ResponseError as error:
        assert "MISCONF" in str(error), error
        assert client.get("value-0")
        return True
    return False


def main(folder: Path, program: str, persistence: Persistence, megabytes: int) -> None:
    maxmemory = megabytes * 2**20
    # A tmpfs keeps nothing of its size for itself.
    size = volume_needed(maxmemory, append_only=persistence == "aof", snapshots=True) * 95 // 100
    volume = folder / "data"
    volume.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(volume)]
    subprocess.run(mount, check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    pod, ballast = RedisPod(folder, program), volume / "ballast"
    settings = {"maxmemory_bytes": maxmemory, "maxmemory_policy": "noeviction"}

    def start() -> Any:
        pod.start(persistence, **settings)
        until("the server answers", pod.loaded)
        return pod.client()

    def fill_disk() -> None:
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(b"\0" * 4096):
                pass

    client = start()
    written = fill(client)
    say("filled to maxmemory", values=written, maxmemory=maxmemory)
    peak = Peak(volume)
    peak.start()
    # A few less: clients need memory too.
    for number in range(written - 8, written):
        client.delete(f"value-{number}")
    for number in range(written - 8):
        overwrite(client, number)
    until("nothing writes", lambda: at_rest(client))
    if persistence == "aof":
        client.bgrewriteaof()
        # Refused while a rewrite runs, else it begins beside it.
        client.execute_command("BGSAVE", "SCHEDULE")
    else:
        client.bgsave()
    until("the snapshot is written", lambda: at_rest(client))
    client.bgsave()
    until("and one more", lambda: healthy(client))
    peak.ended.set()
    peak.join()
    times = {"volume": round(size / maxmemory, 2), "peak": round(peak.bytes / maxmemory, 2)}
    say("every value overwritten, rewrite and snapshots", times_maxmemory=times)

    fill_disk()
    client.config_set("save", "1 1")
    seconds = until("writes are refused", lambda: refused(client))
    say("full: writes are refused with the reason, reads go on", seconds=seconds)
    ballast.unlink()
    seconds = until("writes are taken again", lambda: client.set("room", "1"))
    until("and saved", lambda: healthy(client))
    until("with what was written last", client.save)
    say("room again: writes are taken, without a restart", seconds=seconds)

    fill_disk()
    until("writes are refused", lambda: refused(client))
    begun = time.monotonic()
    code = pod.stop()
    say("full: it ends when it is told to", seconds=round(time.monotonic() - begun, 1), code=code)
    client = start()
    # All but what was taken in the moment in which the disk became full, or with `rdb` since the last snapshot.
    kept = len(client.keys("value-*"))
    assert (kept, client.get("room")) == (written - 8, b"1"), kept
    say("full: it starts again with its data")
    ballast.unlink()
    seconds = until("writes are taken again", lambda: client.set("room", "2"))
    say("room again: writes are taken", seconds=seconds)
    pod.stop()
    client = start()
    assert client.get("room") == b"2"
    say("and kept over a restart")
    pod.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], cast(Persistence, sys.argv[3]), int(sys.argv[4]) if len(sys.argv) > 4 else 16)
