"""What is learned: rows of factors, and how a rating follows from them"""
