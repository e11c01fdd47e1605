"""The processes of a host that outlive its agent, and the small supervisor that keeps them running."""
