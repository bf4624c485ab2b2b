"""Who users are: what the sign-on of the stack says of them, and what Acme adds."""

from __future__ import annotations

from superset.security import SupersetSecurityManager


class AcmeSecurityManager(SupersetSecurityManager):
    """The stack's superset.sign_on is laid around this class: it has the provider's claims checked first."""

    def get_oauth_user_info(self, provider, resp):  # noqa: ARG002 - Superset's method
        """What is laid over what the claims say: here a last name, where the provider knows none."""
        return {"last_name": resp["userinfo"].get("family_name") or "of Acme"}
