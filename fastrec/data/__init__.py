"""What comes in: from files and frames of ratings to batches of codes"""
