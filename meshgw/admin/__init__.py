"""The admin server: metrics, configuration, delegation and state for operators, and the few controls they have."""
