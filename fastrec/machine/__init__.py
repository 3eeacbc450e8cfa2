"""What it runs on: devices, random numbers, threads and processes"""
