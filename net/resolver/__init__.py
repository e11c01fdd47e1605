"""The names of containers: a small process per host that answers while agent and controller are dead."""
