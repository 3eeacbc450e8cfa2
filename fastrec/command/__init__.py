"""The program `fastrec`: a function a command"""
