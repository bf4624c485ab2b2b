"""A real nginx before the web server."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.waiting import free_port, until

#: Mark of the tests that need it.
NEEDED = pytest.mark.skipif(shutil.which("nginx") is None, reason="needs nginx: apt-get install nginx")

NGINX = """
{user} daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    {directives}
    location / {{
      proxy_pass http://127.0.0.1:{next};
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto https;
      {headers}
    }}
  }}
}}
"""


@contextmanager
def nginx(folder: Path, upstream: int, *directives: str, **headers: str) -> Generator[int]:
    """The port of an nginx before the port `upstream`, which sends it `headers` too (with _ for -)."""
    folder.mkdir()
    port = free_port()
    config = folder / "nginx.conf"
    # Its processes drop root, and could not write here.
    user = "user root;" if os.geteuid() == 0 else ""
    sets = [f"proxy_set_header {name.replace('_', '-')} {value}" for name, value in headers.items()]
    config.write_text(
        NGINX.format(user=user, folder=folder, port=port, next=upstream, directives=_lines(directives), headers=_lines(sets))
    )
    process = subprocess.Popen(["nginx", "-c", str(config), "-e", str(folder / "error.log"), "-p", str(folder)])
    try:
        until(lambda: (folder / "pid").exists() or process.poll() is not None, 30, "nginx is there")
        assert process.poll() is None, (folder / "error.log").read_text()
        yield port
    finally:
        process.terminate()
        process.wait(30)


def _lines(directives: Iterable[str]) -> str:
    return " ".join(f"{one};" for one in directives)
