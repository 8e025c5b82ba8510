"""`python -m helpers.data PATH` says what is understood of a folder."""

from helpers.data.look import main

main()
