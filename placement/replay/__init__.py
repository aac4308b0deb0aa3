"""Tokens replayed through a plan: messages, loads, activated experts."""
