"""Read each supported data source into the four raw tables."""
