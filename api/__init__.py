"""The HTTP API: REST and streams over a controller (or a host) seen only through api.ports."""
