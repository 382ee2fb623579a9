"""Strict services on loopback, for what emulators leave out, and a proxy that spoils connections."""
