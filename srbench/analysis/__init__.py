"""Statistics and tables of stored records; no torch."""
