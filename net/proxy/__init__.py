"""Published ports that tell the PROXY protocol: a small process per host that answers while agent and controller
are dead."""
