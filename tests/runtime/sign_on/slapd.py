"""A directory with TLS: slapd and its tools of Debian's packages slapd and ldap-utils."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from local import binaries
from tests.tls import Authority
from tests.waiting import free_port, until

SUFFIX = "dc=acme,dc=example"
PEOPLE = f"ou=people,{SUFFIX}"
BIND_USER, BIND_PASSWORD = f"cn=superset,{SUFFIX}", "looks-users-up"
ADMINS, ANALYSTS = (f"cn={name},ou=groups,{SUFFIX}" for name in ("admins", "analysts"))
#: Each user's password, and group.
USERS = {
    "ann": ("password-of-ann", ADMINS),
    "bob": ("password-of-bob", ANALYSTS),
    "carol": ("password-of-carol", ANALYSTS),
    "admin": ("password-of-a-stranger", ADMINS),
}
#: Where Debian has schemas and modules.
SCHEMAS, MODULES = Path("/etc/ldap/schema"), Path("/usr/lib/ldap")

CONFIG = """
include {schemas}/core.schema
include {schemas}/cosine.schema
include {schemas}/inetorgperson.schema
modulepath {modules}
moduleload back_mdb
moduleload memberof
pidfile {folder}/slapd.pid
TLSCACertificateFile {tls}/ca.crt
TLSCertificateFile {tls}/tls.crt
TLSCertificateKeyFile {tls}/tls.key
# A bind in clear is refused, whoever asks for one.
security simple_bind=128
database mdb
suffix {suffix}
rootdn cn=root,{suffix}
rootpw root
directory {folder}/data
overlay memberof
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact={bind_user} read by self read by * none
"""


@dataclass(frozen=True)
class Directory:
    folder: Path
    ldaps: str
    ldap: str
    #: The first again, at an address that its certificate does not name.
    misnamed: str

    @property
    def ca_file(self) -> str:
        """The authority that signed its certificate."""
        return str(self.folder / "ca" / "ca.crt")

    def change(self, ldif: str, *how: str) -> None:
        """Apply changes (`ldapmodify`; with `-a` entries are added)."""
        done = subprocess.run(
            ["ldapmodify", *how, "-x", "-H", self.ldaps, "-D", f"cn=root,{SUFFIX}", "-w", "root"],
            input=ldif,
            env=os.environ | {"LDAPTLS_CACERT": self.ca_file},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def needed() -> None:
    """Skip, with the reason, where a program or the client is missing."""
    missing = [name for name in ("slapd", "ldapmodify", "openssl") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not found: install Debian's packages slapd, ldap-utils and openssl")
    tried = subprocess.run([str(binaries.superset_python()), "-c", "import ldap"], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip("python-ldap is not in Superset's environment: make ldap")


@contextmanager
def running(folder: Path) -> Generator[Directory]:
    """A directory with the users and groups above, until the block ends."""
    needed()
    tls = Authority(folder / "ca").sign(folder / "tls", ["127.0.0.1"])
    (folder / "data").mkdir()
    config = folder / "slapd.conf"
    config.write_text(
        CONFIG.format(schemas=SCHEMAS, modules=MODULES, folder=folder, tls=tls, suffix=SUFFIX, bind_user=BIND_USER)
    )
    tls_port, port = free_port(), free_port()
    directory = Directory(
        folder, f"ldaps://127.0.0.1:{tls_port}", f"ldap://127.0.0.1:{port}", f"ldaps://127.0.0.2:{tls_port}"
    )
    log = folder / "log"
    with log.open("wb") as written:
        process = subprocess.Popen(
            [
                "slapd",
                "-d",
                "stats",
                "-f",
                str(config),
                "-h",
                " ".join((directory.ldaps, directory.ldap, directory.misnamed)),
            ],
            stdout=written,
            stderr=written,
        )
        try:
            until(lambda: b"slapd starting" in log.read_bytes() or process.poll() is not None, 60, "slapd listens")
            assert process.poll() is None, log.read_text()
            directory.change(_entries(), "-a")
            yield directory
        finally:
            process.terminate()
            process.wait(60)


def _entries() -> str:
    entries = [
        f"dn: {SUFFIX}\nobjectClass: dcObject\nobjectClass: organization\ndc: acme\no: Acme",
        f"dn: {PEOPLE}\nobjectClass: organizationalUnit\nou: people",
        f"dn: ou=groups,{SUFFIX}\nobjectClass: organizationalUnit\nou: groups",
        f"dn: {BIND_USER}\nobjectClass: applicationProcess\nobjectClass: simpleSecurityObject\ncn: superset\n"
        f"userPassword: {BIND_PASSWORD}",
    ]
    entries += [
        f"dn: uid={name},{PEOPLE}\nobjectClass: inetOrgPerson\nuid: {name}\ncn: {name}\ngivenName: {name.title()}\n"
        f"sn: of Acme\nmail: {name}@acme.example\nuserPassword: {password}"
        for name, (password, _) in USERS.items()
    ]
    entries += [
        "\n".join(
            [f"dn: {group}", "objectClass: groupOfNames", f"cn: {group[3:].partition(',')[0]}"]
            + [f"member: uid={name},{PEOPLE}" for name, (_, its) in USERS.items() if its == group]
        )
        for group in (ADMINS, ANALYSTS)
    ]
    return "\n\n".join(entries) + "\n"
