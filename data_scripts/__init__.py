"""Two commands over `helpers.data`: `fetch` brings and verifies images, `prepare` computes once what chapters take."""
