"""Which drivers of analytic databases the image has, and which package brings another: data, and one question.

The image has what requirements/superset.txt locks; a test asks Superset's environment for each name. Packages are those of the
extras of apache-superset 6.1.0.
"""

from __future__ import annotations

import re
from collections.abc import Collection

#: What a URI may begin with (SQLAlchemy's dialect, and driver where it says one) without another package.
IN_IMAGE = frozenset(
    {
        "postgresql",
        "postgresql+psycopg2",
        "postgres",
        "postgres+psycopg2",
        "sqlite",
        "sqlite+pysqlite",
        "shillelagh",
        "gsheets",
    }
    | {"superset"}
)
#: The package that brings a dialect, or a dialect with this driver.
PACKAGES = {
    "awsathena": "pyathena",
    "bigquery": "sqlalchemy-bigquery",
    "clickhousedb": "clickhouse-connect",
    "cockroachdb": "cockroachdb",
    "crate": "sqlalchemy-cratedb",
    "databend": "databend-sqlalchemy",
    "databricks": "databricks-sqlalchemy",
    "db2": "ibm-db-sa",
    "ibm_db_sa": "ibm-db-sa",
    "denodo": "denodo-sqlalchemy",
    "dremio": "sqlalchemy-dremio",
    "drill": "sqlalchemy-drill",
    "druid": "pydruid",
    "duckdb": "duckdb-engine",
    "elasticsearch": "elasticsearch-dbapi",
    "exa": "sqlalchemy-exasol",
    "firebird": "sqlalchemy-firebird",
    "firebolt": "firebolt-sqlalchemy",
    "hana": "sqlalchemy-hana",
    "hive": "pyhive",
    "impala": "impyla",
    "kylin": "kylinpy",
    "mssql": "pymssql",
    "mssql+pyodbc": "pyodbc",
    "mysql": "mysqlclient",
    "mysql+pymysql": "pymysql",
    "netezza": "nzalchemy",
    "oracle": "cx-oracle",
    "pinot": "pinotdb",
    "postgresql+asyncpg": "asyncpg",
    "presto": "pyhive",
    "redshift": "sqlalchemy-redshift",
    "risingwave": "sqlalchemy-risingwave",
    "singlestoredb": "sqlalchemy-singlestoredb",
    "snowflake": "snowflake-sqlalchemy",
    "solr": "sqlalchemy-solr",
    "starrocks": "starrocks",
    "teradatasql": "teradatasqlalchemy",
    "trino": "trino",
    "vertica": "sqlalchemy-vertica-python",
}


def scheme_of(uri: str) -> str:
    """What a URI begins with, up to `://`."""
    return uri.partition("://")[0].lower()


def missing(uri: str, added: Collection[str]) -> str | None:
    """The package whose driver `uri` needs and the image lacks, with `added` in it too; empty where no package is known.

    None where nothing is missing. A dialect that nobody here knows may be that of an added package that nobody knows either.
    """
    scheme = scheme_of(uri)
    if scheme in IN_IMAGE:
        return None
    names = {normalized(name) for name in added}
    package = PACKAGES.get(scheme, PACKAGES.get(scheme.partition("+")[0], ""))
    if package:
        return None if package in names else package
    return None if names - {*PACKAGES.values()} else ""


def normalized(package: str) -> str:
    """A package's name as package indexes compare it, without a version."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", package, maxsplit=1)[0]).lower()


def problem(uri: str, added: Collection[str]) -> tuple[str, str] | None:
    """The rule that a URI without its driver breaks, and the way out; None where the image has the driver."""
    package = missing(uri, added)
    if package is None:
        return None
    rule = f"needs a driver that the image does not have ({scheme_of(uri)}://)"
    what = f"the package {package}" if package else "its package"
    listed = f"images.drivers: [{package or '<package>'}]"
    return rule, f"Add {what} to the image (requirements/superset.in, then make lock and make image), and say so in {listed}"
