"""Calls and what was said on them, kept in a database."""
