"""`python -m fastrec`, as `fastrec`"""
import sys
from fastrec.command.main import main

if __name__=='__main__': sys.exit(main())
