"""How good it is"""
