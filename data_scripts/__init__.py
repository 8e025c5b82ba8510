"""Two commands: `fetch` brings and verifies images and weights, `prepare` computes once what chapters take."""
