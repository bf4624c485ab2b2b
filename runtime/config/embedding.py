"""What embedded dashboards need of Superset's settings: the guests' role, whose their tokens are, and the API for other sites."""

from __future__ import annotations

from topology.model import Topology

#: Superset's own CORS_OPTIONS (6.1.0, a test compares them): where maps come from.
TILE_ORIGINS = ("https://tile.openstreetmap.org", "https://tile.osm.ch")


def settings(topology: Topology) -> dict[str, object]:
    """The settings of the stack's embedding; none where no other site has dashboards.

    Which sites may have them in frames is said by that page's headers (`runtime.superset.embedding`).
    """
    embedding = topology.superset.embedding
    if embedding is None:
        return {}
    return {
        "GUEST_ROLE_NAME": embedding.role,
        # As shipped a token is for the host at which it was fetched: the one of a portal that calls the Service inside the
        # cluster would count nowhere else.
        "GUEST_TOKEN_JWT_AUDIENCE": topology.stack,
        "ENABLE_CORS": True,
        # Without credentials: a page of another site is who its token says, never who is logged in.
        "CORS_OPTIONS": {
            "origins": [*TILE_ORIGINS, *embedding.origins],
            "supports_credentials": False,
            "expose_headers": ["Retry-After"],
        },
    }
