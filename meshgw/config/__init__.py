"""The configuration file: text to typed, frozen classes, with every problem reported at its place."""
