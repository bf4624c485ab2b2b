"""The supervisor of a stack's processes, with a real supervisord and a real Redis server."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from local import health
from local.processes import processes, redis_acl, redis_acl_file, redis_config, redis_config_file, supervisor_config
from local.state import StateFolder, ensure_secrets, write_private
from local.supervision import Supervisor
from tests.waiting import until
from topology.plan import plan

pytestmark = pytest.mark.services

#: More than supervisord makes by itself (`startretries`), and than it made before a minute was over.
STARTS = 12


@pytest.mark.further
def test_a_port_that_somebody_else_has_for_a_while_leaves_nothing_down(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        topology = plan("here", {"topology": "minimal", "platform": "local", "local": {"redis_port": port}})
        (server,) = topology.redis
        folder = StateFolder(tmp_path / "state")
        folder.make()
        folder.redis(server.name).mkdir()
        secrets = ensure_secrets(folder, topology)
        write_private(redis_acl_file(folder, server), redis_acl(server, secrets))
        write_private(redis_config_file(folder, server), redis_config(folder, server))
        mine = tuple(process for process in processes(topology, folder, secrets) if process.name == server.name)
        write_private(folder.supervisor_config, supervisor_config(folder, mine))
        supervisor = Supervisor(folder)
        supervisor.start()
        starts: set[int] = set()

        def started_often() -> bool:
            (process,) = supervisor.states()
            assert process.state != "FATAL"
            starts.add(process.started)
            return len(starts) >= STARTS

        try:
            supervisor.start_process(server.name)
            until(started_often, 600, f"{STARTS} starts")
            stranger.close()
            until(lambda: health.redis_ready(server, secrets), 120, "the server has its port")
            until(lambda: supervisor.states()[0].running, 60, "the supervisor sees it")
        finally:
            supervisor.shutdown()
