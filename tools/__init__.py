"""Tools for developers; nothing here is needed by a user."""
