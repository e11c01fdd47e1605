"""The Store seam: durable records, optimistic commits, a watch."""
