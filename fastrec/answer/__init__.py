"""What a trained model answers: ratings, grids, lists, what is alike, and somebody new"""
