"""Rows in Arrow: values as Salesforce has them, hashes, the mapping, and what changed."""
