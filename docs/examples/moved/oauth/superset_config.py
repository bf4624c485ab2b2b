"""Before: log-in with Keycloak, and the team's own Celery, caches and metadata database."""

import os

from cachelib.redis import RedisCache
from flask_appbuilder.security.manager import AUTH_OAUTH
from superset.security import SupersetSecurityManager

SECRET_KEY = os.environ["SUPERSET_SECRET_KEY"]
SQLALCHEMY_DATABASE_URI = os.environ["METADATA_URI"]
ENABLE_PROXY_FIX = True
APP_NAME = "Reports of Acme"


class CeleryConfig:
    broker_url = "redis://redis:6379/0"
    result_backend = "redis://redis:6379/1"
    worker_prefetch_multiplier = 1


CELERY_CONFIG = CeleryConfig
RESULTS_BACKEND = RedisCache(host="redis", key_prefix="results_")
DATA_CACHE_CONFIG = {"CACHE_TYPE": "RedisCache", "CACHE_REDIS_URL": "redis://redis:6379/2"}


class KeycloakManager(SupersetSecurityManager):
    def oauth_user_info(self, provider, response=None):
        claims = self.appbuilder.sm.oauth_remotes[provider].get("userinfo").json()
        return {"username": claims["preferred_username"], "email": claims["email"], "role_keys": claims["groups"]}


CUSTOM_SECURITY_MANAGER = KeycloakManager
AUTH_TYPE = AUTH_OAUTH
AUTH_USER_REGISTRATION = True
AUTH_USER_REGISTRATION_ROLE = "Gamma"
AUTH_ROLES_MAPPING = {"bi-admins": ["Admin"], "bi-users": ["Alpha", "sql_lab"]}
AUTH_ROLES_SYNC_AT_LOGIN = True
OAUTH_PROVIDERS = [
    {
        "name": "keycloak",
        "token_key": "access_token",
        "remote_app": {
            "client_id": "superset",
            "client_secret": os.environ["KEYCLOAK_SECRET"],
            "server_metadata_url": "https://login.example.com/realms/acme/.well-known/openid-configuration",
            "client_kwargs": {"scope": "openid email profile"},
        },
    }
]
