"""The controller: specs in, placements out; one loop over immutable snapshots."""
