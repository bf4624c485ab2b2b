"""A page of Acme's own."""

from __future__ import annotations

from flask import Blueprint

pages = Blueprint("acme", __name__)


@pages.route("/acme/health")
def health() -> str:
    """GET /acme/health."""
    return "acme"
