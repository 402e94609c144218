"""Tokens of a domain, such as the products of the multiplication table: found in text, put in as ids, counted."""
