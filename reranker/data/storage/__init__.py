"""Local folders and S3 object storage."""
