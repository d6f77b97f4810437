"""Clients of discovery and storage systems, without mesh meaning: how they are connected to, asked, and watched."""
