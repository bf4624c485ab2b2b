"""How the web server takes connections: no client that is slow, silent or gone holds one of its threads."""
