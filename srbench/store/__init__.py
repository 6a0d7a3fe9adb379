"""Stored bytes (`objects`) and what is known of them (`records`)."""
