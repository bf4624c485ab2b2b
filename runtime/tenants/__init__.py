"""Tenants at run time: whose a query is, which queue it goes to, and what one tenant may take of workers that it shares."""
