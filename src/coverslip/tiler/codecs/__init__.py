"""Codecs: parse stored codestreams, encode and decode frames; every library is loaded on first use."""
