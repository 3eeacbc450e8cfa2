"""What has been learned, in tables and pictures"""
