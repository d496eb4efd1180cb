"""A recipe resolved into stages, their training, and the one-call API."""
