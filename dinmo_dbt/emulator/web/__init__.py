"""HTTP: routes, sessions, the server."""
