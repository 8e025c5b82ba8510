"""Networks, each a function that gives it with initial or published weights."""
