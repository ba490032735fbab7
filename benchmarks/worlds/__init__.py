"""Worlds: real prompts with listed responses, and a made one that needs nothing."""
