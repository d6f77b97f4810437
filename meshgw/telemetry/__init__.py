"""What operators see: metrics and their formats, the access log, the process log."""
