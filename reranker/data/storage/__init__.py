"""Push and pull data between local folders and S3 object storage."""
