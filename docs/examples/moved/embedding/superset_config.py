"""Before: dashboards in another site, with every protection of a browser off."""

FEATURE_FLAGS = {"EMBEDDED_SUPERSET": True, "ENABLE_TEMPLATE_PROCESSING": True}
GUEST_ROLE_NAME = "Embedded"
GUEST_TOKEN_JWT_SECRET = "not-a-secret"
GUEST_TOKEN_JWT_EXP_SECONDS = 300
ENABLE_CORS = True
CORS_OPTIONS = {"supports_credentials": True, "resources": ["/api/*"], "origins": ["https://portal.example.com"]}
TALISMAN_ENABLED = True
TALISMAN_CONFIG = {
    "content_security_policy": {"frame-ancestors": ["https://portal.example.com"]},
    "force_https": False,
}
SESSION_COOKIE_SAMESITE = "None"
SESSION_COOKIE_SECURE = True
SESSION_COOKIE_HTTPONLY = False
MAX_CONTENT_LENGTH = 50000000
