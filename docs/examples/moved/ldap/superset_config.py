"""Before: log-in with a directory whose certificate nobody checks, and its password in the file."""

from cachelib.file import FileSystemCache
from flask_appbuilder.security.manager import AUTH_LDAP

SECRET_KEY = "not-a-secret"
SQLALCHEMY_DATABASE_URI = "postgresql://superset:superset@db/superset"
RESULTS_BACKEND = FileSystemCache("/app/superset_home/sqllab")
SQLLAB_ASYNC_TIME_LIMIT_SEC = 21600
SQL_MAX_ROW = 500000
SUPERSET_WEBSERVER_TIMEOUT = 300
ROW_LIMIT = 10000
AUTH_TYPE = AUTH_LDAP
AUTH_LDAP_SERVER = "ldaps://ad.example.com"
AUTH_LDAP_ALLOW_SELF_SIGNED = True
AUTH_LDAP_SEARCH = "ou=staff,dc=example,dc=com"
AUTH_LDAP_UID_FIELD = "sAMAccountName"
AUTH_LDAP_BIND_USER = "cn=superset,ou=services,dc=example,dc=com"
AUTH_LDAP_BIND_PASSWORD = "not-a-secret-either"
AUTH_ROLES_MAPPING = {"cn=bi,ou=groups,dc=example,dc=com": ["Alpha"]}
AUTH_USER_REGISTRATION = True
AUTH_USER_REGISTRATION_ROLE = "Gamma"
