"""The agent: one per host. Runs containers as the View says, adopts what runs, reports what is."""
