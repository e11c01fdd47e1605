"""The swarm family of the Docker API: services, tasks, nodes and the swarm, which is the fleet."""
