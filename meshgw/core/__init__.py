"""The kernel: what all steps of a request share."""
