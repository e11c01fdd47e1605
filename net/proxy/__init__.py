"""Published ports that tell who asks (PROXY protocol): a small process per host that outlives the agent."""
