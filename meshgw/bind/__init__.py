"""meshgw."""
