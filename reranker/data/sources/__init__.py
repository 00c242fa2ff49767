"""Readers for each supported data source."""
