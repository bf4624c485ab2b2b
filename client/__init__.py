"""The client of Superset's asynchronous HTTP API."""
