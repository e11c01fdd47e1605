"""The write verbs behind the API: pure decisions from a request and a snapshot to a Plan."""
