"""What every room stands on: how arguments are checked and things said, devices, random numbers, threads, processes"""
