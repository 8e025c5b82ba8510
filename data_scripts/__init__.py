"""Commands that bring, verify and convert data, and the registry of what they know."""
