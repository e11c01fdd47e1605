"""The agent: one per host. Runs containers as the controller's View says, adopts what runs, reports what is."""
