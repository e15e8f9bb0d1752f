"""One module a verb. A verb imports no other verb."""
